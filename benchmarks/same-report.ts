/** What the comparison of models and ways found: rows, and a matrix for people. */
import type { Row } from "./report.ts";
import { type Apart, type Cell, GOAL, judge, short, type Verdict } from "./same-cells.ts";
import { nameOf, type Way } from "./same-ways.ts";

export interface Column {
  readonly model: string;
  readonly innocent: Apart;
  /** One for each way; undefined where it was not run. */
  readonly cells: readonly (Cell | undefined)[];
}

export function reportOf(
  columns: readonly Column[],
  ways: readonly Way[],
): { readonly rows: Row[]; readonly missing: string[]; readonly text: string } {
  const verdicts = columns.map(({ cells, innocent }) =>
    ways.map((_, row) => {
      const cell = cells[row];
      return cell === undefined ? undefined : judge(cell, innocent);
    }),
  );
  return {
    rows: rowsOf(columns, ways, verdicts),
    missing: sentencesOf(columns, ways, verdicts, "refused"),
    text: textOf(columns, ways, verdicts),
  };
}

type Verdicts = readonly (readonly (Verdict | undefined)[])[];

function rowsOf(columns: readonly Column[], ways: readonly Way[], verdicts: Verdicts): Row[] {
  return columns.flatMap(({ model, innocent, cells }, at) =>
    cells.flatMap((cell, row): Row[] => {
      const verdict = verdicts[at]?.[row];
      if (cell === undefined || verdict === undefined || verdict.is === "refused") return [];
      const { is, why } = verdict;
      const name = `${model}: ${nameOf(ways[row] as Way)}`;
      const {
        losses = Number.NaN,
        first = Number.NaN,
        later = Number.NaN,
      } = cell.kind === "ran" ? cell.apart : {};
      const gradients = `gradients ${short(first)}, later ${short(later)}`;
      const isBits = cell.kind === "ran" && cell.root === "one process";
      return [
        {
          case: name,
          value: losses,
          unit: `of losses; ${gradients}; ${is}${why === undefined ? "" : `: ${why}`}`,
          peer: "one process after innocent changes",
          peerValue: innocent.losses,
          goal: isBits ? "bits" : `losses ${GOAL.losses}, gradients ${GOAL.gradients}`,
          reached: is === "bits" || is === "near" || is === "whole",
        },
      ];
    }),
  );
}

/** Models and ways by sentence, so that one that says the same of many is said once. */
function sentencesOf(
  columns: readonly Column[],
  ways: readonly Way[],
  verdicts: Verdicts,
  wanted: Verdict["is"],
): string[] {
  const bySentence = new Map<string, string[]>();
  for (const [at, { model }] of columns.entries()) {
    for (const [row, verdict] of (verdicts[at] ?? []).entries()) {
      if (verdict?.is !== wanted) continue;
      const sentence = verdict.why?.split("\n")[0] ?? "";
      const names = bySentence.get(sentence) ?? [];
      bySentence.set(sentence, names);
      names.push(`${model}: ${nameOf(ways[row] as Way)}`);
    }
  }
  return [...bySentence].map(([sentence, names]) => {
    const more = names.length > 1 ? ` and ${names.length - 1} more` : "";
    return `${names[0]}${more}: ${wanted}: ${sentence}`;
  });
}

/** The matrix: a row for each way, a column for each model. */
function textOf(columns: readonly Column[], ways: readonly Way[], verdicts: Verdicts): string {
  const letters = columns.map((_, at) => String.fromCharCode("A".charCodeAt(0) + at));
  const rows = ways.map((way, row) => [
    nameOf(way),
    ...columns.map(({ cells }, at) => cellText(cells[row], verdicts[at]?.[row])),
  ]);
  const innocent = columns.map(({ innocent: own }) => pair(own));
  const table = [["", ...letters], ["(innocent changes)", ...innocent], ...rows];
  const widths = ["", ...letters].map((_, at) =>
    Math.max(...table.map((cells) => (cells[at] as string).length)),
  );
  const lines = table.map((cells) =>
    cells
      .map((cell, at) => cell.padEnd(widths[at] as number))
      .join("  ")
      .trimEnd(),
  );
  const count = (is: Verdict["is"]) => verdicts.flat().filter((own) => own?.is === is).length;
  return [
    ...columns.map(({ model }, at) => `${letters[at]}: ${model}`),
    "",
    "Differences from one process: of losses, and the larger one of gradients at the first and the last weights.",
    `bits: none; whole: the model is too small to be divided; -: refused; ?: not run; ~: above the goal (${GOAL.losses}, ${GOAL.gradients}), as innocent changes are; !: wrong.`,
    "",
    ...lines,
    "",
    `${count("bits")} cells have the bits of one process, ${count("near")} are near it, ${count("rounding")} are as far as innocent changes, ${count("whole")} divide nothing, ${count("refused")} are refused, ${count("wrong")} are wrong.`,
    ...sentencesOf(columns, ways, verdicts, "wrong"),
    ...sentencesOf(columns, ways, verdicts, "rounding"),
  ].join("\n");
}

function cellText(cell: Cell | undefined, verdict: Verdict | undefined): string {
  if (cell === undefined || verdict === undefined) return "?";
  if (verdict.is === "refused") return "-";
  if (verdict.is === "bits" || verdict.is === "whole") return verdict.is;
  const mark = { near: "", rounding: "~", wrong: "!" }[verdict.is];
  return `${mark}${cell.kind === "ran" ? pair(cell.apart) : "failed"}`;
}

function pair({ losses, first, later }: Apart): string {
  return `${short(losses)} ${short(Math.max(first, later))}`;
}
