import{A as e,B as t,D as n,F as r,G as i,J as a,K as o,L as s,O as c,P as l,Q as u,W as d,Y as f,c as p,et as m,n as h,rt as g,tt as _,x as v}from"./disclose-version.js";import{t as y}from"./Code.js";function b(e,t,n){let r=n||`none`,i=`2+3=`,a=n?` \\\n  -H "Authorization: Bearer ${n}"`:``,o=`const reply = await fetch("${e}/v1/chat/completions", {
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
  -d '{"model": "${t}", "messages": [{"role": "user", "content": "${i}"}]}'`},{name:`openai-python`,text:s},{name:`anthropic-python`,text:c},{name:`JavaScript`,text:o}]}var x=e(`<button> </button>`),S=e(`<div class="tabs" role="group"></div> <!>`,1);function C(e,l){_(l,!0);let C=h(l,`key`,3,``),w=f(`curl`),T=u(()=>b(location.origin,l.model,C())),E=u(()=>s(T).find(({name:e})=>e===s(w)));var D=S(),O=d(D);v(O,21,()=>s(T),({name:e})=>e,(e,o)=>{let l=()=>s(o).name;var u=x(),d=i(u,!0);t(()=>{p(u,`aria-pressed`,l()===s(w)),n(d,l())}),r(`click`,u,()=>a(w,l(),!0)),c(e,u)}),g(O);var k=o(O,2);y(k,{get title(){return s(E).name},get text(){return s(E).text}}),c(e,D),m()}l([`click`]);export{C as t};