import assert from "node:assert/strict";
import { test } from "node:test";
import { FRAME, type Frame } from "../../net/frame.ts";
import type { Link, LinkHandler } from "../../net/link.ts";
import { Peer } from "./peer.ts";

/** A stream whose other end is the test. */
class FakeLink {
  handler: LinkHandler | undefined;
  isClosed = false;
  write(): void {}
  close(): void {
    this.isClosed = true;
    this.handler?.closed("its connection was closed", false);
  }
  bye(): void {
    this.handler?.frame({ type: FRAME.bye, length: 0 } as Frame, new Uint8Array(0));
  }
}

function peerWithLinks() {
  const heard: string[] = [];
  const note = (what: string) => () => void heard.push(what);
  const events = {
    failed: note("failed"),
    lost: note("lost"),
    left: note("left"),
    reported: note("reported"),
  };
  const peer = new Peer(events, 2);
  const [inbound, outbound] = [0, 1].map(() => [new FakeLink(), new FakeLink()] as const) as [
    readonly [FakeLink, FakeLink],
    readonly [FakeLink, FakeLink],
  ];
  for (const stream of [0, 1] as const) {
    peer.addInbound(stream, inbound[stream] as unknown as Link);
    peer.addOutbound(stream, outbound[stream] as unknown as Link);
  }
  return { peer, heard, inbound, outbound };
}

test("a peer that leaves ends its streams one by one, and a late goodbye on one does not count as a loss", () => {
  const { peer, heard, inbound, outbound } = peerWithLinks();
  for (const link of [inbound[0], outbound[1]]) {
    link.bye();
    link.close();
  }
  assert.deepEqual([peer.hasLeft, heard], [false, []]);
  inbound[1].bye();
  assert.deepEqual([peer.hasLeft, heard], [true, ["left"]]);
});

test("a stream that ends without a goodbye is a loss, whatever the others have received", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { heard, inbound, outbound } = peerWithLinks();
  inbound[0].bye();
  outbound[0].close();
  t.mock.timers.tick(249);
  assert.deepEqual(heard, []);
  t.mock.timers.tick(1);
  assert.deepEqual(heard, ["lost"]);
});

test("a peer whose streams have all ended is lost at once", () => {
  const { heard, inbound, outbound } = peerWithLinks();
  for (const link of [...inbound, ...outbound]) link.close();
  assert.deepEqual(heard, ["lost"]);
});

test("what a peer says on one stream comes before the loss of another", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { heard, inbound, outbound } = peerWithLinks();
  outbound[0].close();
  const report = Buffer.from('{"code":"ABORTED"}');
  inbound[0].handler?.frame({ type: FRAME.abort, length: report.byteLength } as Frame, report);
  assert.deepEqual(heard, ["reported"]);
});
