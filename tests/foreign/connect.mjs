// What a client of Connect's or gRPC-Web's meets at a gateway: the same by each transport, in Node and in a page.
//
// Its types are those of a FileDescriptorSet, in base64: stubs would be made of the same.

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";

export function typesOf(descriptors) {
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, base64Decode(descriptors)));
}

async function failure(call) {
  try {
    await call();
  } catch (reason) {
    return ConnectError.from(reason);
  }
  throw new Error("it did not fail");
}

export async function meet(transport, types) {
  const ledger = createClient(types.getService("testing.v1.LedgerService"), transport);
  const feed = createClient(types.getService("testing.v1.FeedService"), transport);
  const told = {};
  let header, trailer;
  const options = {
    headers: { tenant: "acme", "blob-bin": "+vv8/f7/" },
    onHeader: (one) => (header = one),
    onTrailer: (one) => (trailer = one),
    timeoutMs: 20_000,
  };
  const recorded = await ledger.record({ line: "ä", times: 3 }, options);
  told.recorded = [recorded.line, header.get("cost"), trailer.get("cost"), trailer.get("blob-bin").replace(/=+$/, "")];
  told.looked = (await ledger.look({ line: "b", times: 1 })).line;
  told.large = (await ledger.record({ line: "x".repeat(1000), times: 300 })).line.length;

  const refused = await failure(() => ledger.record({ line: "a", raiseText: "no more: 100 % ä" }));
  const retry = refused.findDetails(types.getMessage("google.rpc.RetryInfo"));
  told.refused = [Code[refused.code], refused.rawMessage, refused.metadata.get("quota")];
  told.retry = retry.map((one) => Number(one.retryDelay.seconds));
  told.wrong = Code[(await failure(() => ledger.record({ line: "a" }, { headers: { "blob-bin": "!" } }))).code];
  told.late = Code[(await failure(() => ledger.look({ line: "late", sleepSeconds: 20 }, { timeoutMs: 300 }))).code];

  told.stream = [];
  for await (const one of feed.run({ name: "a", count: 3, letters: 1, free: 3 }, options)) {
    told.stream.push(one.number);
  }
  told.stream.push(header.get("x-tenant"));
  told.cut = [];
  const cut = await failure(async () => {
    for await (const one of feed.watch({ name: "b", count: 1, letters: 1, free: 2, failCode: 9 })) {
      told.cut.push(one.text);
    }
  });
  told.cut.push(Code[cut.code], cut.rawMessage);

  const kept = await failure(() => ledger.store({ line: "kept" }, { headers: { prefer: "respond-async" } }));
  const [task] = kept.findDetails(types.getMessage("poste.v1.KeptCall"));
  told.kept = [Code[kept.code], task.location === `/v1/tasks/${task.id}`, kept.metadata.get("location") === task.location];
  return told;
}
