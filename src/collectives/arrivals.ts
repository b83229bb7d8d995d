/** Tiles of a reduction that run as soon as all they need has arrived, while it is still in the cache. */

export interface ArrivalsOptions {
  /** Runs each tile. */
  readonly tiles: readonly (() => unknown)[];
  /** Bytes of a tile of one input; the last may be shorter. */
  readonly tileBytes: number;
  /** Bytes of each input, and how many inputs arrive. */
  readonly byteLength: number;
  readonly inputs: number;
}

export class Arrivals {
  readonly #options: ArrivalsOptions;
  /** Bytes that each tile waits for. */
  #missing: number[] = [];
  #open = false;
  #failure: { readonly error: unknown } | undefined;

  constructor(options: ArrivalsOptions) {
    this.#options = options;
  }

  begin(): void {
    const { tiles, tileBytes, byteLength, inputs } = this.#options;
    this.#missing = tiles.map(
      (_, tile) => inputs * Math.min(tileBytes, byteLength - tile * tileBytes),
    );
    this.#failure = undefined;
    this.#open = true;
  }

  /** Bytes of one input are there; each is told of once at most. It never throws: who tells knows nothing of tiles. */
  arrived(byteOffset: number, byteLength: number): void {
    const { tileBytes } = this.#options;
    let [at, left] = [byteOffset, byteLength];
    while (this.#open && left > 0) {
      const tile = Math.floor(at / tileBytes);
      const count = Math.min(left, (tile + 1) * tileBytes - at);
      this.#missing[tile] = (this.#missing[tile] ?? 0) - count;
      if (this.#missing[tile] === 0) this.#run(tile);
      at += count;
      left -= count;
    }
  }

  /** Everything has arrived: runs the tiles that nobody told of. Throws what a tile threw. */
  finish(): void {
    for (const [tile, missing] of this.#missing.entries()) if (missing > 0) this.#run(tile);
    this.stop();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** No tile runs any more. */
  stop(): void {
    this.#open = false;
  }

  #run(tile: number): void {
    try {
      this.#options.tiles[tile]?.();
    } catch (error) {
      this.#failure ??= { error };
    }
  }
}
