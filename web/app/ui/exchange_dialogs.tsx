/** Import, export, and the jobs that do it. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { cancelJob, exportUrl, putUpload, startExport, startImport } from "../api/client";
import type { ExchangeFormat, ItemState, Job } from "../api/types";
import { jobs, noteJob } from "../context";
import { t, type TextKey } from "../i18n";
import { notify } from "../notices";
import { sendInParts, uploading } from "../uploads";
import { Button, Dialog, Field, IconButton, Toggle } from "./controls";
import { Icon } from "./icon";
import { STATES, UploadProgress } from "./top_bar";

const FORMATS: readonly ExchangeFormat[] = ["coco", "yolo-seg", "labelme", "sa-1b", "label-maps", "project"];

function FormatChoice({ value, onChange }: { value: ExchangeFormat; onChange: (format: ExchangeFormat) => void }): JSX.Element {
  return (
    <fieldset class="formats">
      <legend>{t("export.format")}</legend>
      {FORMATS.map((format) => (
        <label class="format" key={format}>
          <input type="radio" name="format" checked={value === format} onChange={() => onChange(format)} />
          <span>
            <b>{t(`format.${format}`)}</b>
            <span class="muted">{t(`format.${format}.hint`)}</span>
          </span>
        </label>
      ))}
    </fieldset>
  );
}

const useJob = (): { job: () => Job | null; start: (call: () => Promise<Job>) => Promise<void> } => {
  const id = useSignal<string | null>(null);
  return {
    job: () => jobs.value.find((job) => job.id === id.value) ?? null,
    start: async (call) => {
      try {
        const job = await call();
        noteJob(job);
        id.value = job.id;
      } catch (error) {
        notify(t("say.failed", { message: (error as Error).message }), "error");
      }
    },
  };
};

export function ExportDialog({ onClose }: { onClose: () => void }): JSX.Element {
  const format = useSignal<ExchangeFormat>("coco");
  const state = useSignal<ItemState | "">("");
  const images = useSignal(false);
  const { job, start } = useJob();
  const running = job();
  const isWhole = format.value === "project";
  return (
    <Dialog
      title={t("export.title")}
      onClose={onClose}
      footer={
        <Button kind="primary" icon="download" disabled={running?.state === "running" || running?.state === "queued"} onClick={() => void start(() => startExport({ format: format.value, filter: { state: state.value || null }, images: images.value }))}>
          {t("export.start")}
        </Button>
      }
    >
      <div class="form">
        <FormatChoice value={format.value} onChange={(value) => (format.value = value)} />
        <Field label={t("export.filter")}>
          {(id) => (
            <select id={id} value={state.value} onChange={(e) => (state.value = e.currentTarget.value as ItemState | "")}>
              <option value="">{t("grid.all")}</option>
              {STATES.map((each) => (
                <option key={each} value={each}>
                  {t(`state.${each}`)}
                </option>
              ))}
            </select>
          )}
        </Field>
        <Toggle label={t("export.images")} hint={t(isWhole ? "export.images.always" : "export.images.hint")} checked={images.value || isWhole} disabled={isWhole} onChange={(value) => (images.value = value)} />
        {running && <JobRow job={running} />}
      </div>
    </Dialog>
  );
}

/** Upload the files of an import, and start it. */
async function importFiles(format: ExchangeFormat, files: readonly File[]): Promise<Job> {
  const upload = crypto.randomUUID();
  await sendInParts(files, (part, number) => putUpload(upload, number, part));
  return startImport(format, upload);
}

export function ImportDialog({ onClose }: { onClose: () => void }): JSX.Element {
  const format = useSignal<ExchangeFormat>("coco");
  const files = useSignal<readonly File[]>([]);
  const { job, start } = useJob();
  const running = job();
  const isUploading = uploading.value.total > 0;
  const isBusy = isUploading || running?.state === "running" || running?.state === "queued";
  return (
    <Dialog
      title={t("import.title")}
      onClose={onClose}
      footer={
        <Button kind="primary" icon="upload" disabled={files.value.length === 0 || isBusy} onClick={() => void start(() => importFiles(format.value, files.value))}>
          {t("import.start")}
        </Button>
      }
    >
      <div class="form">
        <FormatChoice value={format.value} onChange={(value) => (format.value = value)} />
        <Field label={t("import.files")}>{(id) => <input id={id} type="file" multiple onChange={(e) => (files.value = [...(e.currentTarget.files ?? [])])} />}</Field>
        <p class="muted">{t("import.hint")}</p>
        {isUploading && <UploadProgress />}
        {running && <JobRow job={running} />}
      </div>
    </Dialog>
  );
}

export function JobsDialog({ onClose }: { onClose: () => void }): JSX.Element {
  return (
    <Dialog title={t("jobs.title")} onClose={onClose}>
      {jobs.value.length === 0 ? (
        <p class="empty">{t("jobs.none")}</p>
      ) : (
        <div class="job-list">
          {jobs.value.map((job) => (
            <JobRow key={job.id} job={job} />
          ))}
        </div>
      )}
    </Dialog>
  );
}

interface Report {
  readonly file?: string;
  readonly items?: number;
  readonly objects?: number;
  readonly lost?: readonly string[];
  readonly skipped?: readonly { readonly name: string; readonly message: string }[];
}

function JobRow({ job }: { job: Job }): JSX.Element {
  const isRunning = job.state === "running" || job.state === "queued";
  const report = (job.result ?? {}) as Report;
  const name = t(`job.${job.kind}` as TextKey);
  const row = useRef<HTMLDivElement>(null);
  useEffect(() => row.current?.scrollIntoView({ block: "nearest" }), [job.state]); // below the formats in a small window
  return (
    <div class={`job ${job.state}`} role="status" ref={row}>
      <div class="job-head">
        <b>{name}</b>
        <span class="muted">{t(`job.${job.state}`, { done: job.done, total: job.total, message: job.message })}</span>
        {isRunning && <IconButton icon="close" label={t("job.cancel")} size={15} onClick={() => void cancelJob(job.id).then(noteJob).catch(() => undefined)} />}
      </div>
      {isRunning && <progress aria-label={name} value={job.total > 0 ? job.done / job.total : undefined} />}
      {job.state === "done" && report.items !== undefined && (
        <p class="muted">{t(job.kind === "import" ? "import.report" : "export.report", { items: report.items, n: report.objects ?? 0 })}</p>
      )}
      {report.lost && report.lost.length > 0 && (
        <div class="lost">
          <p>
            <Icon name="alert" size={15} /> {t("export.lost")}
          </p>
          <ul>
            {report.lost.map((line) => (
              <li key={line}>{line}</li>
            ))}
          </ul>
        </div>
      )}
      {report.skipped && report.skipped.length > 0 && (
        <ul class="lost">
          {report.skipped.map(({ name: file, message }) => (
            <li key={file}>
              {file}: {message}
            </li>
          ))}
        </ul>
      )}
      {job.kind === "export" && job.state === "done" && (
        <a class="button primary" href={exportUrl(job.id)} download>
          <Icon name="download" size={16} />
          <span>{t("export.download", { name: report.file ?? "" })}</span>
        </a>
      )}
    </div>
  );
}
