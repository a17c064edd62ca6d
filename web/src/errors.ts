/** What was given cannot be used; the message says what is wrong with it and what to do. */
export class SeganyError extends Error {
  override name = "SeganyError";
}
