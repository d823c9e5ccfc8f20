import "./style.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { readTheme, setTheme } from "./lib/theme";
import { setLanguage } from "./lib/words.svelte";

setTheme(readTheme());
await setLanguage();
mount(App, { target: document.getElementById("page")! });

// After everything that the reader waits for; without it the page is the same, but for days without a network.
const keepFiles = (): void => void import("./lib/offline").then(({ startWorker }) => startWorker()).catch(() => undefined);
if (document.readyState === "complete") keepFiles();
else addEventListener("load", keepFiles);
