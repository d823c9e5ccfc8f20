import{t as e}from"./download.js";import{n as t}from"./markdown.js";import{b as n}from"./answer.svelte.js";import{a as r}from"./words.svelte.js";var i=`shoestring-chats-2`,a={markdown:{ending:`md`,type:`text/markdown`,make:e=>e.map(d).join(`

`)},html:{ending:`html`,type:`text/html`,make:h},json:{ending:`json`,type:`application/json`,make:p}},o=`
body { font: 16px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 2rem 1rem; color: #1d1b18; background: #fbfaf7; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } article { margin: 0 0 2rem; } .user { background: #efeae0; border-radius: 12px; padding: 1px 1rem; }
.who { color: #655f56; font-size: 0.85rem; margin: 0.6rem 0; } .plain, pre { white-space: pre-wrap; } pre, code { font-family: monospace; font-size: 0.9em; }
details { color: #655f56; border-left: 2px solid #ddd7cb; padding-left: 1rem; } table { border-collapse: collapse; } td, th { border: 1px solid #ddd7cb; padding: 4px 8px; }
@media (prefers-color-scheme: dark) { body { color: #ece7dd; background: #171512; } .user { background: #2b2721; } .who, details { color: #a59d90; } }`;async function s(e,t){l([e],t,e.title||`chat`)}async function c(e,t){l(e,t,`shoestring-chats`)}function l(t,n,r){let{ending:i,type:o,make:s}=a[n],c=r.replace(/[\\/:*?"<>|\u0000-\u001f]+/g,` `).trim();e(s(t),`${c}.${i}`,o)}var u=e=>e.role===`user`?r(`you`):e.model??``;function d(e){let t=n(e).map(e=>{let t=e.reasoning_content.trim(),n=e.attachments.map(({name:e,text:t})=>`${e}:\n\n${f(t)}`),r=t?[`> ${t.replaceAll(`
`,`
> `)}`]:[];return[`**${u(e)}**`,...r,e.content,...n].join(`

`)});return`# ${e.title}\n\n${t.join(`

---

`)}\n`}function f(e){let t=Math.max(2,...(e.match(/`+/g)??[]).map(e=>e.length)),n="`".repeat(t+1);return`${n}\n${e}\n${n}`}function p(e){let t=e.map(({place:e,messages:t,...n})=>({...n,messages:Object.values(t??{})}));return JSON.stringify({format:i,chats:t},null,1)}var m=e=>e.replace(/[&<>"]/g,e=>({"&":`&amp;`,"<":`&lt;`,">":`&gt;`,'"':`&quot;`})[e]);function h(e){return`<!doctype html><html><head>${`<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"><meta name="viewport" content="width=device-width"><title>${m(e.length===1?e[0].title:`shoestring`)}</title><style>${o}</style>`}</head><body>${e.map(g).join(`<hr>`)}</body></html>\n`}function g(e){let i=n(e).map(e=>{let n=e.reasoning_content.trim(),i=e.attachments.map(({name:e,text:t})=>`<details><summary>${m(e)}</summary><pre>${m(t)}</pre></details>`),a=e.role===`user`?`<p class="plain">${m(e.content)}</p>`:t(e.content),o=n?`<details><summary>${m(r(`thinking`))}</summary><p class="plain">${m(n)}</p></details>`:``;return`<article class="${e.role}"><p class="who">${m(u(e))}</p>${o}${a}${i.join(``)}</article>`});return`<h1>${m(e.title)}</h1>${i.join(``)}`}export{c as n,s as r,i as t};