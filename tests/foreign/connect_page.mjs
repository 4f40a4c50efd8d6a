// What a page meets, as `window.meet(TRANSPORT, URL, DESCRIPTORS)`.

import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { meet, typesOf } from "./connect.mjs";

const transports = {
  "connect-json": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: false, useHttpGet: true }),
  "connect-proto": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "grpc-web": (baseUrl) => createGrpcWebTransport({ baseUrl }),
};
window.meet = (name, url, descriptors) => meet(transports[name](url), typesOf(descriptors));
