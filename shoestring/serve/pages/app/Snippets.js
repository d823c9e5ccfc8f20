import{$ as e,B as t,E as n,F as r,G as i,H as a,J as o,L as s,M as c,N as l,T as u,X as d,Y as f,Z as p,et as m,g as h,k as g,lt as _,ot as v,rt as y,st as b,u as x,z as S}from"./words.svelte.js";import{t as C}from"./Copy.js";var w=r(`<figure class="code"><figcaption><span> </span><!></figcaption> <pre tabindex="0"><code> </code></pre></figure>`);function T(e,t){b(t,!0);let n=x(t,`title`,3,``);var r=w(),a=o(r),s=o(a),u=d(s,!0),f=p(s);C(f,{get text(){return t.text}}),_(a);var m=p(a,2),g=o(m),y=d(g,!0);_(m),_(r),i(e=>{c(u,n()),h(m,`aria-label`,e),c(y,t.text)},[()=>n()||t.text.slice(0,40)]),l(e,r),v()}var E=r(`<p class="fine"> </p>`),D=r(`<section class="part svelte-kkea4x"><header class="svelte-kkea4x"><h2 class="svelte-kkea4x"> </h2> <!></header> <div class="content svelte-kkea4x"><!></div></section>`);function O(e,t){let n=s(),r=x(t,`hint`,3,``);var a=D(),f=o(a),m=o(f),v=d(m,!0),y=p(m,2),b=e=>{var t=E(),n=d(t,!0);i(()=>c(n,r())),l(e,t)};g(y,e=>{r()&&e(b)}),_(f);var S=p(f,2),C=o(S);u(C,()=>t.children),_(S),_(a),i(()=>{h(a,`aria-labelledby`,n),h(m,`id`,n),c(v,t.title)}),l(e,a)}function k(e,t,n){let r=n||`none`,i=`2+3=`,a=n?` \\\n  -H "Authorization: Bearer ${n}"`:``,o=`const reply = await fetch("${e}/v1/chat/completions", {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${n?`\n    Authorization: "Bearer ${n}",`:``}
  },
  body: JSON.stringify({
    model: "${t}",
    messages: [{ role: "user", content: "${i}" }],
  }),
});
console.log((await reply.json()).choices[0].message.content);`,s=`from openai import OpenAI

client = OpenAI(base_url="${e}/v1", api_key="${r}")
reply = client.chat.completions.create(
    model="${t}",
    messages=[{"role": "user", "content": "${i}"}],
)
print(reply.choices[0].message.content)`,c=`from anthropic import Anthropic

client = Anthropic(base_url="${e}", api_key="${r}")
reply = client.messages.create(
    model="${t}",
    max_tokens=256,
    messages=[{"role": "user", "content": "${i}"}],
)
print("".join(block.text for block in reply.content if block.type == "text"))`;return[{name:`curl`,text:`curl ${e}/v1/chat/completions${a} \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${t}", "messages": [{"role": "user", "content": "${i}"}]}'`},{name:`openai-python`,text:s},{name:`anthropic-python`,text:c},{name:`JavaScript`,text:o}]}var A=r(`<button> </button>`),j=r(`<div class="tabs" role="group"></div> <!>`,1);function M(r,o){b(o,!0);let s=x(o,`key`,3,``),u=m(`curl`),g=y(()=>k(location.origin,o.model,s())),S=y(()=>a(g).find(({name:e})=>e===a(u)));var C=j(),w=f(C);n(w,21,()=>a(g),({name:e})=>e,(n,r)=>{let o=()=>a(r).name;var s=A(),f=d(s,!0);i(()=>{h(s,`aria-pressed`,o()===a(u)),c(f,o())}),t(`click`,s,()=>e(u,o(),!0)),l(n,s)}),_(w),T(p(w,2),{get title(){return a(S).name},get text(){return a(S).text}}),l(r,C),v()}S([`click`]);export{O as n,T as r,M as t};