/** How to get in: with the link that the server printed. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useId } from "preact/hooks";

import type { ApiError } from "../api/client";
import { signIn } from "../context";
import { t } from "../i18n";
import { Button, Dialog, Field } from "./controls";
import { Icon } from "./icon";

export function SignInForm({ onDone }: { onDone?: () => void }): JSX.Element {
  const link = useSignal("");
  const error = useSignal("");
  const errorId = useId();
  const submit = async (): Promise<void> => {
    error.value = "";
    try {
      await signIn(link.value);
      onDone?.();
    } catch (reason) {
      error.value = (reason as ApiError).status === 0 ? t("unreachable.title") : (reason as ApiError).message;
    }
  };
  return (
    <form
      class="sign-in"
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <Field label={t("locked.token")}>
        {(id) => <input id={id} autoComplete="off" value={link.value} aria-invalid={error.value !== ""} aria-describedby={errorId} onInput={(e) => (link.value = e.currentTarget.value)} />}
      </Field>
      <p id={errorId} class="form-error" role="alert">
        {error.value && <Icon name="alert" size={15} />}
        {error.value}
      </p>
      <Button kind="primary" type="submit" disabled={link.value.trim() === ""}>
        {t("locked.enter")}
      </Button>
    </form>
  );
}

/** While a project is open whose session has expired. */
export function SignInDialog({ onClose }: { onClose: () => void }): JSX.Element {
  return (
    <Dialog title={t("expired.title")} onClose={onClose}>
      <div class="form">
        <p>{t("expired.text")}</p>
        <SignInForm onDone={onClose} />
      </div>
    </Dialog>
  );
}
