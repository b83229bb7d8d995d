/**
 * Tags of ChaCha20-Poly1305 (RFC 8439) over bytes that are not encrypted. Node.js makes an object
 * for each tag, which takes four times as long as the tag of a short frame. So OpenSSL's own
 * functions are called if this program exports them and they give the same tag; otherwise
 * `node:crypto` makes the tags, which are the same bytes.
 */
import { type CipherCCM, createCipheriv } from "node:crypto";
import { type Address, loadProgram } from "../memory/index.ts";

export const KEY_BYTES = 32;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;

/** Makes one tag after the other, under one key. */
export interface Tagger {
  /** @param nonce 12 bytes, which must never repeat under one key */
  begin(nonce: Uint8Array): void;
  add(bytes: Uint8Array): void;
  /** Writes the tag of everything that was added since `begin`: 16 bytes. */
  end(into: Uint8Array): void;
}

/** @param key 32 bytes */
export function newTagger(key: Uint8Array): Tagger {
  checkLength(key, KEY_BYTES);
  openSsl ??= tryOpenSsl();
  return openSsl === "missing" ? new NodeTagger(key) : new OpenSslTagger(key, openSsl);
}

/** A tagger that uses `node:crypto`. @internal */
export class NodeTagger implements Tagger {
  readonly #key: Uint8Array;
  #cipher: CipherCCM | undefined;

  constructor(key: Uint8Array) {
    this.#key = key;
  }

  begin(nonce: Uint8Array): void {
    const options = { authTagLength: TAG_BYTES };
    this.#cipher = createCipheriv("chacha20-poly1305", this.#key, nonce, options);
  }

  add(bytes: Uint8Array): void {
    this.#cipher?.setAAD(bytes, { plaintextLength: 0 });
  }

  end(into: Uint8Array): void {
    if (this.#cipher === undefined) throw new Error("A tag was ended that was not begun.");
    this.#cipher.final();
    into.set(this.#cipher.getAuthTag());
    this.#cipher = undefined;
  }
}

interface OpenSsl {
  readonly cipher: Address;
  readonly newContext: () => Address;
  readonly freeContext: (context: Address) => void;
  readonly init: (
    context: Address,
    cipher: Address | null,
    engine: null,
    key: Uint8Array | null,
    nonce: Uint8Array,
  ) => number;
  readonly update: (
    context: Address,
    out: null,
    written: Int32Array,
    bytes: Uint8Array,
    byteLength: number,
  ) => number;
  readonly finish: (context: Address, out: Uint8Array, written: Int32Array) => number;
  readonly control: (context: Address, type: number, value: number, bytes: Uint8Array) => number;
}

/** The value of EVP_CTRL_AEAD_GET_TAG in <openssl/evp.h>. */
const GET_TAG = 0x10;

/** The native context of each tagger, freed when the tagger is collected. */
const contexts = new FinalizationRegistry<() => unknown>((free) => free());

class OpenSslTagger implements Tagger {
  readonly #openSsl: OpenSsl;
  readonly #context: Address;
  readonly #written = new Int32Array(1);

  constructor(key: Uint8Array, functions: OpenSsl) {
    const context = functions.newContext();
    contexts.register(this, () => functions.freeContext(context));
    this.#openSsl = functions;
    this.#context = context;
    check(functions.init(context, functions.cipher, null, key, new Uint8Array(NONCE_BYTES)));
  }

  begin(nonce: Uint8Array): void {
    checkLength(nonce, NONCE_BYTES);
    check(this.#openSsl.init(this.#context, null, null, null, nonce));
  }

  add(bytes: Uint8Array): void {
    const { update } = this.#openSsl;
    check(update(this.#context, null, this.#written, bytes, bytes.byteLength));
  }

  end(into: Uint8Array): void {
    checkLength(into, TAG_BYTES);
    check(this.#openSsl.finish(this.#context, into, this.#written));
    check(this.#openSsl.control(this.#context, GET_TAG, TAG_BYTES, into));
  }
}

let openSsl: OpenSsl | "missing" | undefined;

/**
 * Returns "missing" if this program does not export the functions, or they do not give the tag of
 * `node:crypto`.
 */
function tryOpenSsl(): OpenSsl | "missing" {
  try {
    const functions = bindOpenSsl();
    const key = new Uint8Array(KEY_BYTES).fill(1);
    const tags = [new OpenSslTagger(key, functions), new NodeTagger(key)].map((tagger) => {
      const tag = new Uint8Array(TAG_BYTES);
      tagger.begin(new Uint8Array(NONCE_BYTES).fill(2));
      tagger.add(new Uint8Array(100).fill(3).subarray(7));
      tagger.add(new Uint8Array(1).fill(4));
      tagger.end(tag);
      return Buffer.from(tag).toString("hex");
    });
    return tags[0] === tags[1] ? functions : "missing";
  } catch {
    return "missing";
  }
}

function bindOpenSsl(): OpenSsl {
  const program = loadProgram();
  return {
    cipher: program.func<() => Address>("void *EVP_chacha20_poly1305()")(),
    newContext: program.func("void *EVP_CIPHER_CTX_new()"),
    freeContext: program.func("void EVP_CIPHER_CTX_free(void *context)"),
    init: program.func(
      "int EVP_EncryptInit_ex(void *context, void *cipher, void *engine, const uint8_t *key, const uint8_t *nonce)",
    ),
    update: program.func(
      "int EVP_EncryptUpdate(void *context, void *out, int32_t *written, const uint8_t *bytes, int byteLength)",
    ),
    finish: program.func("int EVP_EncryptFinal_ex(void *context, uint8_t *out, int32_t *written)"),
    control: program.func(
      "int EVP_CIPHER_CTX_ctrl(void *context, int type, int value, uint8_t *bytes)",
    ),
  };
}

function check(status: number): void {
  if (status !== 1) throw new Error("OpenSSL cannot make a tag.");
}

/** Native code reads and writes a fixed number of bytes, so lengths are checked here. */
function checkLength(bytes: Uint8Array, wanted: number): void {
  if (bytes.byteLength !== wanted) {
    throw new Error(`A tag needs ${wanted} bytes here, but got ${bytes.byteLength}.`);
  }
}
