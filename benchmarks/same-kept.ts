/**
 * Cells that were compared before, so that a matrix which takes hours can be made in several runs:
 * one line of JSON for each.
 */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import type { Apart, Cell } from "./same-cells.ts";

/** What a line says: `innocent` of a model, or the `cell` of a model and a way. */
interface Line {
  readonly commit: string;
  readonly steps: number;
  readonly model: string;
  readonly way?: string;
  readonly innocent?: Apart;
  readonly cell?: Cell;
}

export class KeptCells {
  readonly #path: string | undefined;
  readonly #commit: string;
  readonly #steps: number;
  readonly #lines = new Map<string, Line>();

  /** @param path where lines are kept; undefined: for this run alone */
  constructor(path: string | undefined, commit: string, steps: number) {
    this.#path = path;
    this.#commit = commit;
    this.#steps = steps;
    if (path === undefined || !existsSync(path)) return;
    for (const text of readFileSync(path, "utf8").split("\n")) {
      if (text === "") continue;
      const line = JSON.parse(text) as Line;
      if (line.steps === steps) this.#lines.set(keyOf(line.model, line.way), line);
    }
  }

  innocentOf(model: string): Apart | undefined {
    return this.#lines.get(keyOf(model))?.innocent;
  }

  cellOf(model: string, way: string): Cell | undefined {
    return this.#lines.get(keyOf(model, way))?.cell;
  }

  addInnocent(model: string, innocent: Apart): void {
    this.#add({ commit: this.#commit, steps: this.#steps, model, innocent });
  }

  addCell(model: string, way: string, cell: Cell): void {
    this.#add({ commit: this.#commit, steps: this.#steps, model, way, cell });
  }

  /** The commits of all lines. */
  get commits(): readonly string[] {
    return [...new Set([...this.#lines.values()].map(({ commit }) => commit))];
  }

  #add(line: Line): void {
    this.#lines.set(keyOf(line.model, line.way), line);
    if (this.#path !== undefined) appendFileSync(this.#path, `${JSON.stringify(line)}\n`);
  }
}

function keyOf(model: string, way = ""): string {
  return `${model}: ${way}`;
}
