// `node connect_node.mjs TRANSPORT URL FILE`: prints what a client in Node meets; FILE has the descriptors.

import { readFileSync } from "node:fs";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { meet, typesOf } from "./connect.mjs";

const [, , name, baseUrl, file] = process.argv;
const options = { baseUrl, httpVersion: "1.1" };
const transports = {
  "connect-json": () => createConnectTransport({ ...options, useBinaryFormat: false, useHttpGet: true }),
  "connect-proto": () => createConnectTransport({ ...options, useBinaryFormat: true, useHttpGet: true }),
  "grpc-web": () => createGrpcWebTransport(options),
  "grpc-web-json": () => createGrpcWebTransport({ ...options, useBinaryFormat: false }),
};
console.log(JSON.stringify(await meet(transports[name](), typesOf(readFileSync(file, "utf8")))));
