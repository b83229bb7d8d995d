// Predicts clicks with DLRM, on made-up visitors whose taste depends on pairs: weekday × page, age
// × time of day.
import { adamw, arrays, defineRun, dlrm, linearSchedule, tensorFrom } from "lockstep";

const samples = 20_000;
const weekdays = 7;
const pages = 50;

let state = 1;
/** Park and Miller's generator: the same numbers everywhere. */
const random = (): number => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;

const dense: number[] = [];
const categories: number[] = [];
const label: number[] = [];
for (let i = 0; i < samples; i++) {
  const [age, hour] = [2 * random() - 1, 2 * random() - 1];
  const [weekday, page] = [Math.floor(weekdays * random()), Math.floor(pages * random())];
  const affinity = ((weekday * 13 + page * 7) % 11) / 5 - 1;
  const chance = 1 / (1 + Math.exp(-3 * affinity - 2 * age * hour));
  dense.push(age, hour);
  categories.push(weekday, page);
  label.push(random() < chance ? 1 : 0);
}

export default defineRun({
  name: "clicks",
  model: dlrm({ dense: 2, categories: [weekdays, pages], width: 8, bottom: [32], top: [64, 32] }),
  data: arrays({
    dense: tensorFrom("float32", [samples, 2], dense),
    categories: tensorFrom("int32", [samples, 2], categories),
    label: tensorFrom("float32", [samples], label),
  }),
  optimizer: adamw({ learningRate: 5e-3 }),
  schedule: linearSchedule(),
  batch: 256,
  steps: 1000,
});
