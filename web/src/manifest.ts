/** `manifest.json` of an export: what its files are, and how images become their input. */

import { SeganyError } from "./errors";

/** Height, then width. */
export type SizeHW = readonly [number, number];

/** Of `Manifest.format_version`: the one that this code reads. */
const FORMAT_VERSION = 2;

/** How an image becomes the square input of a model; `segany.Preprocessing`. */
export interface Preprocessing {
  readonly input_size: number;
  readonly resize: "longest_side" | "square";
  readonly mean_rgb: readonly number[];
  readonly std_rgb: readonly number[];
}

interface TensorRecord {
  readonly name: string;
  readonly shape: readonly (number | string)[];
}

interface FileRecord {
  readonly path: string;
  readonly sha256: string;
  readonly inputs: readonly TensorRecord[];
  readonly outputs: readonly TensorRecord[];
}

/** What a decoder must know of its model, under the names of the file. */
export interface Manifest {
  readonly format_version: number;
  readonly model: string;
  readonly encoder_id: string;
  readonly preprocessing: Preprocessing;
  readonly low_res_size: number;
  readonly pads_boxes: boolean;
  readonly files: { readonly encoder: FileRecord; readonly decoder: FileRecord };
}

/**
 * Fetch and check a manifest.
 *
 * @throws SeganyError it is not there, is none, or is newer than this code.
 */
export async function fetchManifest(url: URL): Promise<Manifest> {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(new TextDecoder().decode(await fetchBytes(url)));
  } catch (error) {
    if (error instanceof SeganyError) throw error;
    throw new SeganyError(`${url} is no manifest: it is not JSON. Give the manifest.json that segany export made.`);
  }
  const version = manifest?.format_version;
  if (typeof version !== "number") {
    throw new SeganyError(`${url} is no manifest. Give the manifest.json that segany export made.`);
  }
  if (version !== FORMAT_VERSION) {
    throw new SeganyError(
      `${url} has format version ${version}; this page reads version ${FORMAT_VERSION}. ` +
        "Load a newer page, or export the model again.",
    );
  }
  if (!manifest.files?.encoder || !manifest.files.decoder || !manifest.preprocessing) {
    throw new SeganyError(`${url} is damaged: it lacks files or preprocessing. Export the model again.`);
  }
  return manifest;
}

/**
 * Fetch the decoder that a manifest lists, and see that it is that one.
 *
 * Browsers compute sha256 only for pages from https or from this computer; elsewhere it goes unchecked.
 *
 * @throws SeganyError it is not there, or is another file.
 */
export async function fetchDecoder(manifest: Manifest, manifestUrl: URL): Promise<Uint8Array> {
  const { path, sha256 } = manifest.files.decoder;
  const url = new URL(path, manifestUrl);
  const bytes = await fetchBytes(url);
  if (globalThis.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== sha256) {
      throw new SeganyError(
        `${url} is not the file that ${manifestUrl} lists: its sha256 is another. ` +
          "Empty the browser's cache, or copy the whole export again.",
      );
    }
  }
  return bytes;
}

async function fetchBytes(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new SeganyError(`${url} cannot be fetched: ${error}. Check the address and the network.`);
  }
  if (!response.ok) {
    throw new SeganyError(`${url} cannot be fetched: the server answered ${response.status}. Check the address.`);
  }
  return new Uint8Array(await response.arrayBuffer());
}
