/** Only for those who still import the store's face from here: everything is in `index.ts`. */
export type { LeaseView, MvccEvent, MvccOptions, MvccStoreFace, RevisionPosition, WriteOutcome } from "./index.ts";
