import{$ as e,F as t,G as n,H as r,I as i,J as a,Q as o,R as s,U as c,ct as l,dt as u,et as d,g as f,k as p,lt as m,nt as h,ot as g,rt as _,u as v}from"./words.svelte.js";import{t as y}from"./Code.js";function b(e,t,n){let r=n||`none`,i=`2+3=`,a=n?` \\\n  -H "Authorization: Bearer ${n}"`:``,o=`const reply = await fetch("${e}/v1/chat/completions", {
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
  -d '{"model": "${t}", "messages": [{"role": "user", "content": "${i}"}]}'`},{name:`openai-python`,text:s},{name:`anthropic-python`,text:c},{name:`JavaScript`,text:o}]}var x=s(`<button> </button>`),S=s(`<div class="tabs" role="group"></div> <!>`,1);function C(r,s){m(s,!0);let C=v(s,`key`,3,``),w=_(`curl`),T=g(()=>b(location.origin,s.model,C())),E=g(()=>n(T).find(({name:e})=>e===n(w)));var D=S(),O=o(D);p(O,21,()=>n(T),({name:e})=>e,(r,o)=>{let s=()=>n(o).name;var l=x(),u=e(l,!0);a(()=>{f(l,`aria-pressed`,s()===n(w)),t(u,s())}),c(`click`,l,()=>h(w,s(),!0)),i(r,l)}),u(O);var k=d(O,2);y(k,{get title(){return n(E).name},get text(){return n(E).text}}),i(r,D),l()}r([`click`]);export{C as t};