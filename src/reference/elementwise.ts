import type { elementwise } from "../ops/elementwise/index.ts";
import { elementwiseKernel, type Kernel } from "./kernel.ts";

export const elementwiseKernels: Record<keyof typeof elementwise, Kernel> = {
  Add: elementwiseKernel((a, b) => a + b),
  Mul: elementwiseKernel((a, b) => a * b),
};
