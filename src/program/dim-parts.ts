/** Graph nodes that take parts of a dim, and bring them together: see `Shard` for what sections are. */
import { concat, pad, slice } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { type Shard, sectionsOf } from "../mesh/index.ts";

/** The part of a value that the rank at a place of an axis has. */
export function takePart(value: Value, on: Shard, place: number, ranks: number): Value {
  const axis = on.shard as number;
  let start = 0;
  const parts = sectionsOf(on, value.shape[axis] as number).map((section) => {
    const each = section / ranks;
    const from = start + place * each;
    start += section;
    return slice(value, [{ axis, start: from, end: from + each }]);
  });
  return concat(parts, axis);
}

/** The whole of which the ranks of an axis have parts, in the order of their places. */
export function bringTogether(parts: readonly Value[], on: Shard): Value {
  const axis = on.shard as number;
  const size = (parts[0]?.shape[axis] ?? 0) * parts.length;
  const sections = sectionsOf(on, size);
  if (sections.length === 1) return concat(parts, axis);
  let start = 0;
  const ranges = sections.flatMap((section) => {
    const each = section / parts.length;
    const range = { axis, start, end: start + each };
    start += each;
    return parts.map((part) => slice(part, [range]));
  });
  return concat(ranges, axis);
}

/** The whole with zeros in place of the parts of other ranks. */
export function amongZeros(part: Value, on: Shard, place: number, ranks: number): Value {
  const axis = on.shard as number;
  const none = part.shape.map(() => 0);
  let start = 0;
  const sections = sectionsOf(on, (part.shape[axis] as number) * ranks).map((section) => {
    const each = section / ranks;
    const own = slice(part, [{ axis, start, end: start + each }]);
    start += each;
    return pad(own, none.with(axis, place * each), none.with(axis, section - (place + 1) * each));
  });
  return sections.length === 1 ? (sections[0] as Value) : concat(sections, axis);
}
