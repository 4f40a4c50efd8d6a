// The ledger's services by @grpc/grpc-js, without any of Poste's code: node ledger.js PROTO_FOLDER
// Its port is POSTE_PORT. Each run appends `<method> <line>` to the file that POSTE_X_LEDGER names.
// POSTE_X_REFLECTION (v1 or v1Alpha) has it tell of its ForeignService by that version of server reflection.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { ReflectionService } = require("@grpc/reflection");

const definition = loader.loadSync("testing/v1/ledger.proto", {
  includeDirs: [process.argv[2]],
  keepCase: true,
  defaults: true,
});
const { LedgerService, ForeignService } = grpc.loadPackageDefinition(definition).testing.v1;
const ledger = process.env.POSTE_X_LEDGER;

function write(method, line) {
  const entry = `${method} ${line}`;
  fs.appendFileSync(ledger, `${entry}\n`);
  return fs.readFileSync(ledger, "utf8").split("\n").filter((one) => one === entry).length;
}

function handler(method) {
  return async (call, answer) => {
    const { line, sleep_seconds: seconds, fail_code: code, times } = call.request;
    const run = write(method, line);
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    if (code && (!times || run <= times)) {
      answer({ code, details: "told to fail" });
    } else {
      answer(null, { line, run });
    }
  };
}

const server = new grpc.Server();
const handlers = Object.fromEntries(["Record", "Look", "Store", "Legacy"].map((name) => [name, handler(name)]));
server.addService(LedgerService.service, handlers);
server.addService(ForeignService.service, handlers);
const version = process.env.POSTE_X_REFLECTION;
if (version) {
  new ReflectionService(definition, { services: ["testing.v1.ForeignService"] })[version].addToServer(server);
}
server.bindAsync(`127.0.0.1:${process.env.POSTE_PORT}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) {
    throw error;
  }
});
