/** The program of a rank, in the ranks of a run, from one that names them otherwise. */
import type { Run, SimpleStage, Stage, TaskStage, TensorRef } from "./program.ts";
import type { Side, StepProgram } from "./step-program.ts";

/** @param ranks the rank of a run for each that the program names */
export function withRanks(program: StepProgram, ranks: readonly number[]): StepProgram {
  if (ranks.every((rank, index) => rank === index)) return program;
  const rankOf = (named: number): number => ranks[named] as number;
  const named = <T extends { readonly rank: number }>(part: T): T => {
    return { ...part, rank: rankOf(part.rank) };
  };
  const ref = (place: TensorRef): TensorRef => {
    return place.rank === undefined ? place : { ...place, rank: rankOf(place.rank) };
  };
  const refs = (places: Run["inputs"]) =>
    Object.fromEntries(Object.entries(places).map(([name, place]) => [name, ref(place)]));
  const run = (own: Run): Run => {
    return { ...own, inputs: refs(own.inputs), outputs: refs(own.outputs) };
  };
  // A stage that stands at several places stays one object, which is bound once.
  const known = new Map<Stage, Stage>();
  const kept = <S extends Stage>(stage: S, change: (own: S) => S): S => {
    const found = (known.get(stage) as S | undefined) ?? change(stage);
    known.set(stage, found);
    return found;
  };
  const simple = <S extends SimpleStage>(stage: S): S =>
    kept(stage, (own): S => {
      if (own.mode === "collective") return own;
      if (own.mode === "messages") {
        const begins = own.begins.map((each) => ({ ...each, peer: rankOf(each.peer) }));
        return { ...own, begins };
      }
      if (own.mode !== "signal") return { ...own, runs: own.runs.map(run) };
      return { ...own, tells: own.tells.map(rankOf), awaits: own.awaits.map(rankOf) };
    });
  const tasks = (stage: TaskStage): TaskStage =>
    kept(stage, (own) => {
      return { ...own, tasks: own.tasks.map((task) => ({ ...task, work: task.work.map(simple) })) };
    });
  const any = (stage: Stage): Stage => (stage.mode === "tasks" ? tasks(stage) : simple(stage));
  const side = (own: Side): Side => ({
    ...own,
    totals: own.totals.map(any),
    compute: own.compute.map(any),
    commit: own.commit.map(any),
    gradients: own.gradients.map(run),
    pieces: own.pieces?.map(simple),
    evaluate: own.evaluate.map(any),
  });
  const [first, second] = program.sides;
  const { owners } = program;
  return {
    ...program,
    groups: new Map([...program.groups].map(([name, own]) => [name, own.map(rankOf)])),
    sides: [side(first), side(second)],
    held: program.held.map(named),
    kept: program.kept.map(named),
    wards: program.wards.map(rankOf),
    gathered: program.gathered.map(named),
    owners: owners && {
      groups: owners.groups.map((group) => group.map(rankOf)),
      buddies: owners.buddies.map(({ of, at }) => ({ of: rankOf(of), at: rankOf(at) })),
    },
  };
}
