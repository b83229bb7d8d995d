import { checkFamily } from "./support.ts";

checkFamily("convolution");
