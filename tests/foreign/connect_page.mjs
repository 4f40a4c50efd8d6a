// What a page meets, as `window.meet(TRANSPORT, URL, DESCRIPTORS)`.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { GrpcWebClientBase, MethodDescriptor } from "grpc-web";
import { meet, typesOf } from "./connect.mjs";

const transports = {
  "connect-json": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: false, useHttpGet: true }),
  "connect-proto": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "grpc-web": (baseUrl) => createGrpcWebTransport({ baseUrl }),
};
window.meet = (name, url, descriptors) => meet(transports[name](url), typesOf(descriptors));

// The same by Google's own client, as text: what stubs of its generator would do.
window.meetAsText = async (baseUrl, descriptors) => {
  const types = typesOf(descriptors);
  const client = new GrpcWebClientBase({ format: "text" });
  const described = (path, kind, input, output) => {
    const [taken, given] = [types.getMessage(input), types.getMessage(output)];
    const serialize = (message) => toBinary(taken, create(taken, message));
    return new MethodDescriptor(path, kind, Object, Object, serialize, (bytes) => fromBinary(given, bytes));
  };
  const ledger = (name) =>
    described(`/testing.v1.LedgerService/${name}`, "unary", "testing.v1.RecordRequest", "testing.v1.RecordResponse");
  const feed = "testing.v1.FeedService/Run";
  const run = described(`/${feed}`, "server_streaming", "testing.v1.WatchRequest", "testing.v1.WatchResponse");
  const call = (name, message) => client.unaryCall(`${baseUrl}/testing.v1.LedgerService/${name}`, message, {}, ledger(name));

  const told = { line: (await call("Record", { line: "ä", times: 300 })).line.length };
  const refused = await call("Record", { line: "a", raiseText: "no more" }).catch((reason) => reason);
  told.refused = [refused.code, refused.message, refused.metadata.quota];
  told.stream = await new Promise((done, fail) => {
    const got = [];
    const stream = client.serverStreaming(`${baseUrl}/${feed}`, { name: "a", count: 3, letters: 1, free: 3 }, {}, run);
    stream.on("data", (one) => got.push(one.number));
    stream.on("error", fail);
    stream.on("end", () => done(got));
  });
  return told;
};
