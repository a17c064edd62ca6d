import type { JSX } from "preact";

import { patchProject } from "../api/client";
import { model, project, session } from "../context";
import { LANGUAGES, locale, t } from "../i18n";
import { notify } from "../notices";
import { language, theme, type Theme, wheelPans } from "../settings";
import { Dialog, Field, Segmented, Toggle } from "./controls";

export function SettingsDialog({ onClose }: { onClose: () => void }): JSX.Element {
  const rename = async (name: string): Promise<void> => {
    try {
      project.value = await patchProject({ name });
    } catch (error) {
      notify(t("say.failed", { message: (error as Error).message }), "error");
    }
  };
  return (
    <Dialog title={t("settings.title")} onClose={onClose}>
      <div class="form">
        <Field label={t("settings.project")}>{(id) => <input id={id} value={project.value?.name ?? ""} onChange={(e) => void rename(e.currentTarget.value)} />}</Field>
        <div class="field">
          <span class="field-label">{t("settings.theme")}</span>
          <Segmented label={t("settings.theme")} value={theme.value} options={(["system", "dark", "light"] as const).map((value) => ({ value, label: t(`theme.${value}`) }))} onChange={(value: Theme) => (theme.value = value)} />
        </div>
        <Field label={t("settings.language")}>
          {(id) => (
            <select id={id} value={locale.value} onChange={(e) => (language.value = e.currentTarget.value)}>
              {Object.entries(LANGUAGES).map(([code, name]) => (
                <option key={code} value={code}>
                  {name}
                </option>
              ))}
            </select>
          )}
        </Field>
        <Toggle label={t("settings.wheel")} checked={wheelPans.value} onChange={(on) => (wheelPans.value = on)} />
        <p class="muted">
          {t("settings.model")}: {model.value?.name} · segany {session.value?.version}
        </p>
      </div>
    </Dialog>
  );
}
