// Learns how a damped oscillator swings from its equation alone: u'' + 2·damping·u' + frequency²·u
// = 0, u(0) = 1, u'(0) = 0.
import {
  adamw,
  add,
  arrays,
  cos,
  cosine,
  defineRun,
  exp,
  mul,
  pinn,
  sin,
  tensorFrom,
} from "lockstep";

const damping = 0.3;
const frequency = 2;
const end = 5;
const points = 512;
const swing = Math.sqrt(frequency ** 2 - damping ** 2);

export default defineRun({
  name: "oscillator",
  model: pinn({
    residual: ({ u, du, ddu }) => add(add(ddu, mul(du, 2 * damping)), mul(u, frequency ** 2)),
    start: { value: 1, slope: 0 },
    // The known solution, to measure the error: e^(-damping·t) · (cos(swing·t) + damping/swing ·
    // sin(swing·t)).
    solution: (t) => {
      const turn = mul(t, swing);
      return mul(exp(mul(t, -damping)), add(cos(turn), mul(sin(turn), damping / swing)));
    },
    end,
    hidden: [32, 32],
  }),
  data: arrays({
    t: tensorFrom(
      "float32",
      [points, 1],
      Array.from({ length: points }, (_, i) => (end * i) / points),
    ),
  }),
  optimizer: adamw({ learningRate: 1e-2, betas: [0.9, 0.99], weightDecay: 0 }),
  schedule: cosine({ warmup: 50, final: 0.01 }),
  batch: 128,
  steps: 2000,
});
