// The ledger's service by @grpc/grpc-js, without any of Poste's code: node ledger.js PROTO_FOLDER
// Its port is POSTE_PORT. Each run appends `<method> <line>` to the file that POSTE_X_LEDGER names.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const definition = loader.loadSync("testing/v1/ledger.proto", {
  includeDirs: [process.argv[2]],
  keepCase: true,
  defaults: true,
});
const { LedgerService } = grpc.loadPackageDefinition(definition).testing.v1;
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
const methods = ["Record", "Look", "Store", "Legacy"];
server.addService(LedgerService.service, Object.fromEntries(methods.map((name) => [name, handler(name)])));
server.bindAsync(`127.0.0.1:${process.env.POSTE_PORT}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) {
    throw error;
  }
});
