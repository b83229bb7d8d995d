import { checkFamily } from "./support.ts";

checkFamily("reduce");
