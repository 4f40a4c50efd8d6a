// The ledger's services, and a feed, by @grpc/grpc-js, without any of Poste's code: node ledger.js PROTO_FOLDER…
// Its port is POSTE_PORT. Each run appends `<method> <line>` to the file that POSTE_X_LEDGER names.
// POSTE_X_REFLECTION (v1 or v1Alpha) has it tell of its ForeignService by that version of server reflection.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { ReflectionService } = require("@grpc/reflection");

const options = { includeDirs: process.argv.slice(2), keepCase: true, defaults: true };
const definition = loader.loadSync("testing/v1/ledger.proto", options);
const feed = loader.loadSync("testing/v1/feed.proto", options);
const { LedgerService, ForeignService } = grpc.loadPackageDefinition(definition).testing.v1;
const { FeedService } = grpc.loadPackageDefinition(feed).testing.v1;
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

// Streams as many messages as it is asked for; without end if for fewer than none, until its client leaves.
async function watch(call) {
  const { name, count, fail_code: code } = call.request;
  for (let number = 0; number !== count && !call.cancelled; number += 1) {
    if (!call.write({ number, text: name }) && !call.cancelled) {
      await new Promise((resolve) => call.once("drain", resolve).once("cancelled", resolve));
    }
    await new Promise(setImmediate);
  }
  write("Watched", name);
  if (code) {
    call.emit("error", { code, details: "told to fail" });
  } else {
    call.end();
  }
}

const server = new grpc.Server();
server.addService(FeedService.service, { Watch: watch });
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
