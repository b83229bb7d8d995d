import { checkFamily } from "./support.ts";

checkFamily("recurrent");
