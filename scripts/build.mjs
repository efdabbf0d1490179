/** `npm run build`: makes `dist` from `src`. */
import { rebuild } from "./lib/setup.mjs";

rebuild();
