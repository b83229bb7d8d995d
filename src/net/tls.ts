/** TLS without certificates: both sides have a key for this connection alone. */
import type tls from "node:tls";

export const TLS_OPTIONS = {
  ciphers: "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305",
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
} as const;
export const TLS_IDENTITY = "lockstep";

/** Node.js accepts `pskCallback` here, as its own server uses it, but its types do not say so. */
export function serverOptions(psk: Buffer): tls.TLSSocketOptions {
  const options: tls.TLSSocketOptions & Pick<tls.TlsOptions, "pskCallback"> = {
    ...TLS_OPTIONS,
    isServer: true,
    pskCallback: () => psk,
  };
  return options;
}
