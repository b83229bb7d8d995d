import { checkFamily } from "./support.ts";

checkFamily("layout");
