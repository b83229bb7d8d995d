/**
 * SHA-256 of bytes that come in pieces, made beside the JavaScript thread: training and the writing
 * of the same bytes go on meanwhile. OpenSSL's own functions are called on threads of the pool that
 * also writes files, if this program exports them and they give the right hash; otherwise
 * `node:crypto` hashes on the JavaScript thread, in small portions. No thread is started for it.
 */
import { createHash } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { type Address, loadProgram } from "../memory/index.ts";

export interface Sha256 {
  /** Called again when the last call has ended. The bytes must not change before that. */
  add(bytes: Uint8Array): Promise<void>;
  /** Called once, after all bytes: 64 hexadecimal digits. */
  digest(): string;
}

/** Bytes that are hashed at once: about a millisecond. */
const CHUNK_BYTES = 2 ** 20;
/** Fewer bytes are hashed faster than another thread is told to do it. */
const FEW_BYTES = 2 ** 15;

export function newSha256(): Sha256 {
  openSsl ??= tryOpenSsl();
  return openSsl === "missing" ? new NodeSha256() : new OpenSslSha256(openSsl);
}

function* chunksOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += CHUNK_BYTES) {
    yield bytes.subarray(at, at + CHUNK_BYTES);
  }
}

/** @internal */
export class NodeSha256 implements Sha256 {
  readonly #hash = createHash("sha256");

  async add(bytes: Uint8Array): Promise<void> {
    for (const chunk of chunksOf(bytes)) {
      this.#hash.update(chunk);
      await turn();
    }
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}

type Update = ((context: Address, bytes: Uint8Array, byteLength: number) => number) & {
  async(
    context: Address,
    bytes: Uint8Array,
    byteLength: number,
    done: (error: Error | null, status: number) => void,
  ): void;
};

interface OpenSsl {
  readonly type: Address;
  readonly newContext: () => Address;
  readonly freeContext: (context: Address) => void;
  readonly init: (context: Address, type: Address, engine: null) => number;
  readonly update: Update;
  readonly finish: (context: Address, out: Uint8Array, length: null) => number;
}

/** The native context of each hash, freed when the hash is collected. */
const contexts = new FinalizationRegistry<() => void>((free) => free());

class OpenSslSha256 implements Sha256 {
  readonly #openSsl: OpenSsl;
  readonly #context: Address;

  constructor(functions: OpenSsl) {
    const context = functions.newContext();
    contexts.register(this, () => functions.freeContext(context));
    this.#openSsl = functions;
    this.#context = context;
    check(functions.init(context, functions.type, null));
  }

  async add(bytes: Uint8Array): Promise<void> {
    for (const chunk of chunksOf(bytes)) {
      if (chunk.byteLength <= FEW_BYTES) this.addNow(chunk);
      else await this.#addBeside(chunk);
    }
  }

  addNow(bytes: Uint8Array): void {
    check(this.#openSsl.update(this.#context, bytes, bytes.byteLength));
  }

  #addBeside(chunk: Uint8Array): Promise<void> {
    const { update } = this.#openSsl;
    return new Promise((resolve, reject) => {
      update.async(this.#context, chunk, chunk.byteLength, (error, status) => {
        // The promise holds `this` and the bytes until the thread has done with them.
        if (error === null && status === 1) resolve();
        else reject(error ?? failed());
      });
    });
  }

  digest(): string {
    const out = new Uint8Array(32);
    check(this.#openSsl.finish(this.#context, out, null));
    return Buffer.from(out).toString("hex");
  }
}

let openSsl: OpenSsl | "missing" | undefined;

/** Returns "missing" if this program does not export the functions, or they give another hash. */
function tryOpenSsl(): OpenSsl | "missing" {
  try {
    const functions = bindOpenSsl();
    const bytes = new Uint8Array(200).map((_, index) => index).subarray(1);
    const hash = new OpenSslSha256(functions);
    hash.addNow(bytes);
    const wanted = createHash("sha256").update(bytes).digest("hex");
    return hash.digest() === wanted ? functions : "missing";
  } catch {
    return "missing";
  }
}

function bindOpenSsl(): OpenSsl {
  const program = loadProgram();
  return {
    type: program.func<() => Address>("void *EVP_sha256()")(),
    newContext: program.func("void *EVP_MD_CTX_new()"),
    freeContext: program.func("void EVP_MD_CTX_free(void *context)"),
    init: program.func("int EVP_DigestInit_ex(void *context, void *type, void *engine)"),
    update: program.func(
      "int EVP_DigestUpdate(void *context, const uint8_t *bytes, size_t byteLength)",
    ),
    finish: program.func("int EVP_DigestFinal_ex(void *context, uint8_t *out, uint32_t *length)"),
  };
}

function check(status: number): void {
  if (status !== 1) throw failed();
}

function failed(): Error {
  return new Error("OpenSSL cannot make a hash.");
}
