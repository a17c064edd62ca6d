import { render } from "preact";

import "@fontsource-variable/inter/wght.css";
import "./style/base.css";
import "./style/controls.css";
import "./style/editor.css";
import "./style/grid.css";
import "./style/dialogs.css";
import { App } from "./ui/app";

render(<App />, document.getElementById("app")!);
