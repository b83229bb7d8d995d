// Predicts how people rate films, by matrix factorization. Data: MovieLens 100k (ml-100k/u.data)
// under LOCKSTEP_DATA.
import { adamw, defineRun, linearSchedule, matrixFactorization, ratings } from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

export default defineRun({
  name: "movielens",
  // Users and items are numbered from 1.
  model: matrixFactorization({ users: 944, items: 1683, width: 16, mean: 3.53 }),
  data: ratings(`${folder}/ml-100k/u.data`),
  optimizer: adamw({ learningRate: 0.01, weightDecay: 0.5 }),
  schedule: linearSchedule(),
  batch: 512,
  steps: 2000,
});
