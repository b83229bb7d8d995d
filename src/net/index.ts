export { type Address, formatAddress, parseAddress } from "./address.ts";
export { dialPeer } from "./dial.ts";
export {
  checkRank,
  deadlinePassed,
  errorOf,
  Fate,
  peerLost,
  protocolError,
  readReport,
  reportOf,
} from "./failure.ts";
export { FRAME, type Frame, JOINED_BYTES } from "./frame.ts";
export { checkToken } from "./handshake.ts";
export { type DialLineOptions, dialLine, Line, type LineHandler, serveLines } from "./line.ts";
export { LINGER_MS, type Link, type LinkHandler } from "./link.ts";
export { LINK_FAULTS, type LinkFault, LinkFaults, MOST_FAULT_MS } from "./link-faults.ts";
export {
  type Admit,
  type ListenOptions,
  listenTcp,
  type PortRange,
  type TcpListener,
} from "./listener.ts";
export { withResolvers } from "./resolvers.ts";
