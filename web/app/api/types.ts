/** Values of the API: those of the schema by their names (`npm run types` generates them), and names for their parts. */

import type { Change, ExportRequest, ItemSummary, PromptEvent, operations } from "./schema";

export type * from "./schema";

export type ItemState = ItemSummary["state"];
export type Source = Change["source"];
export type PromptKind = PromptEvent["kind"];
export type AttributeValues = Change["attributes"];
export type ExchangeFormat = ExportRequest["format"];
export type ItemQuery = NonNullable<operations["list_items"]["parameters"]["query"]>;
