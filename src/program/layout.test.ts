import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { byteLength, bytesPerElement, type DType } from "../tensor/index.ts";
import { planLayout } from "./layout.ts";
import { blocksOf, wholeSpans } from "./spans.ts";

const items = fc
  .array(
    fc.record({
      shape: fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 3 }),
      dtype: fc.constantFrom<DType>("float32", "float64", "float16", "int64"),
      group: fc.constantFrom("decay", "plain", "states"),
    }),
    { minLength: 1, maxLength: 30 },
  )
  .map((list) =>
    list.map(({ shape, dtype, group }, i) => ({ name: `p${i}`, group, type: { dtype, shape } })),
  );

test("places are aligned, apart, inside their group, and groups are whole tiles", () => {
  fc.assert(
    fc.property(items, fc.constantFrom(64, 1024), (list, tile) => {
      const layout = planLayout(list, tile);
      assert.equal(layout.entries.size, list.length);
      let end = 0;
      for (const group of layout.groups) {
        assert.equal(group.byteOffset, end);
        assert.equal(group.length % tile, 0);
        let inner = group.byteOffset;
        for (const entry of group.entries) {
          assert.equal(entry.byteOffset % 64, 0);
          assert.ok(entry.byteOffset >= inner, `${entry.name} overlaps the one before`);
          assert.equal(entry.type.dtype, group.dtype);
          inner = entry.byteOffset + byteLength(entry.type);
        }
        end += group.length * bytesPerElement(group.dtype);
        assert.ok(inner <= end);
      }
      assert.equal(layout.byteLength, end);
    }),
  );
});

test("blocks cover a group once, in order", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), (tiles) => {
      const items = [
        { name: "w", group: "g", type: { dtype: "float32" as const, shape: [tiles * 64] } },
      ];
      const layout = planLayout(items, 64);
      let at = 0;
      for (const { start, end } of wholeSpans(layout).flatMap(blocksOf)) {
        assert.equal(start, at);
        assert.ok([16, 4, 1].includes((end - start) / 64));
        at = end;
      }
      assert.equal(at, tiles * 64);
    }),
  );
});
