// The words of the page, in four languages from one catalogue: en | de | fr | zh.

const LANGUAGES = ["en", "de", "fr", "zh"] as const;
export type Language = (typeof LANGUAGES)[number];
export const NAMES: Record<Language, string> = { en: "English", de: "Deutsch", fr: "Français", zh: "中文" };

const CATALOGUE = `
newChat|New chat|Neuer Chat|Nouvelle discussion|新对话
search|Search chats|Chats durchsuchen|Rechercher|搜索对话
pinned|Pinned|Angeheftet|Épinglées|已置顶
recent|Chats|Chats|Discussions|对话
noChats|No chats yet.|Noch keine Chats.|Aucune discussion.|还没有对话。
noMatch|Nothing has all of these words.|Nichts enthält alle diese Wörter.|Rien ne contient tous ces mots.|没有包含所有这些词的对话。
rename|Rename|Umbenennen|Renommer|重命名
pin|Pin|Anheften|Épingler|置顶
unpin|Unpin|Lösen|Détacher|取消置顶
remove|Delete|Löschen|Supprimer|删除
removed|Deleted.|Gelöscht.|Supprimée.|已删除。
undo|Undo|Rückgängig|Annuler|撤销
temporary|Temporary chat|Temporärer Chat|Discussion temporaire|临时对话
temporaryHint|It is written nowhere and gone when you leave it.|Er wird nirgends gespeichert und ist weg, sobald du ihn verlässt.|Elle n’est enregistrée nulle part et disparaît quand vous la quittez.|不会保存，离开后即消失。
keptHere|Chats are kept in this browser only.|Chats bleiben nur in diesem Browser.|Les discussions restent dans ce navigateur.|对话仅保存在此浏览器中。
ask|Ask something|Frag etwas|Posez une question|问点什么
send|Send|Senden|Envoyer|发送
stop|Stop|Anhalten|Arrêter|停止
model|Model|Modell|Modèle|模型
settings|Settings|Einstellungen|Réglages|设置
system|Instructions for the model|Anweisungen an das Modell|Instructions pour le modèle|给模型的指示
temperature|Temperature|Temperatur|Température|温度
maxTokens|Longest answer, in tokens|Längste Antwort, in Tokens|Réponse maximale, en jetons|最长回答（词元）
asModel|as the model has it|wie im Modell|comme dans le modèle|按模型默认
thinking|Thinking|Nachdenken|Réflexion|思考
thinkAuto|as the model does|wie das Modell es tut|comme le modèle le fait|按模型默认
thinkOn|on|an|activée|开
thinkOff|off|aus|désactivée|关
isThinking|Thinking …|Denkt nach …|Réfléchit …|思考中…
thoughtFor|Thought for {0} s, {1} tokens|{0} s nachgedacht, {1} Tokens|Réflexion de {0} s, {1} jetons|思考了 {0} 秒，{1} 个词元
stopped|Stopped before the end.|Vor dem Ende angehalten.|Arrêtée avant la fin.|已在结束前停止。
tooLong|The answer reached its longest length.|Die Antwort hat ihre größte Länge erreicht.|La réponse a atteint sa longueur maximale.|回答达到了最大长度。
goOn|Go on|Weiter|Continuer|继续
edit|Edit|Bearbeiten|Modifier|编辑
save|Save|Speichern|Enregistrer|保存
cancel|Cancel|Abbrechen|Annuler|取消
again|Answer again|Noch einmal antworten|Répondre de nouveau|重新回答
copy|Copy|Kopieren|Copier|复制
copied|Copied|Kopiert|Copié|已复制
previous|Previous version|Vorherige Fassung|Version précédente|上一个版本
next|Next version|Nächste Fassung|Version suivante|下一个版本
figures|{0} tokens/s · first after {1} s · {2} of {3} tokens of context|{0} Tokens/s · erstes nach {1} s · {2} von {3} Tokens Kontext|{0} jetons/s · premier après {1} s · {2} jetons de contexte sur {3}|{0} 词元/秒 · 首词 {1} 秒 · 上下文 {2}/{3}
unreachable|The service does not answer. Your text is still here; try again.|Der Dienst antwortet nicht. Dein Text ist noch da; versuch es noch einmal.|Le service ne répond pas. Votre texte est toujours là ; réessayez.|服务没有响应。您的文字还在，请重试。
comeBack|Try again in {0} s.|Versuch es in {0} s noch einmal.|Réessayez dans {0} s.|请在 {0} 秒后重试。
welcome|Ask it. See it think.|Frag. Sieh zu, wie es denkt.|Demandez. Regardez-le réfléchir.|提问，看它思考。
welcomeMini|mini knows sums and Countdown: it was trained by reinforcement alone, on two cores in minutes.|mini kann Summen und Countdown: Es wurde allein durch Bestärkung trainiert, auf zwei Kernen in Minuten.|mini connaît les sommes et Countdown : entraîné par renforcement seul, sur deux cœurs, en quelques minutes.|mini 会做加减法和 Countdown：仅靠强化学习，在两个核心上几分钟训练而成。
menu|Menu|Menü|Menu|菜单
close|Close|Schließen|Fermer|关闭
download|Save as Markdown|Als Markdown sichern|Enregistrer en Markdown|保存为 Markdown
exportAll|Export all chats|Alle Chats exportieren|Exporter toutes les discussions|导出所有对话
importChats|Import chats|Chats importieren|Importer des discussions|导入对话
notImported|This file has no chats of this page.|Diese Datei enthält keine Chats dieser Seite.|Ce fichier ne contient pas de discussions de cette page.|此文件不含本页面的对话。
light|Light|Hell|Clair|浅色
dark|Dark|Dunkel|Sombre|深色
signIn|Sign in|Anmelden|Se connecter|登录
signUp|Make an account|Konto anlegen|Créer un compte|注册
signOut|Sign out|Abmelden|Se déconnecter|退出
email|E-mail|E-Mail|E-mail|电子邮件
password|Password|Passwort|Mot de passe|密码
newPassword|New password|Neues Passwort|Nouveau mot de passe|新密码
passwordHint|8 characters or more; 15 are better.|8 Zeichen oder mehr; 15 sind besser.|8 caractères ou plus ; 15, c’est mieux.|至少 8 个字符，15 个更好。
code|Code of your authenticator app, or a recovery code|Code deiner Authenticator-App oder ein Wiederherstellungscode|Code de votre application, ou code de secours|验证器代码或恢复码
forgotten|I forgot my password|Ich habe mein Passwort vergessen|J’ai oublié mon mot de passe|忘记密码
needsWork|Registration is busy: your browser has to compute for some seconds.|Die Registrierung ist stark gefragt: Dein Browser muss einige Sekunden rechnen.|Les inscriptions sont nombreuses : votre navigateur doit calculer quelques secondes.|注册繁忙：您的浏览器需要计算几秒钟。
accountReady|Your account is ready. Sign in.|Dein Konto ist bereit. Melde dich an.|Votre compte est prêt. Connectez-vous.|账户已就绪，请登录。
passwordSet|Your password is set. Sign in.|Dein Passwort ist gesetzt. Melde dich an.|Votre mot de passe est défini. Connectez-vous.|密码已设置，请登录。
confirmed|Your address is confirmed. Sign in.|Deine Adresse ist bestätigt. Melde dich an.|Votre adresse est confirmée. Connectez-vous.|邮箱已确认，请登录。
account|Account|Konto|Compte|账户
keys|API keys|API-Schlüssel|Clés d’API|API 密钥
keyName|What is the key for?|Wofür ist der Schlüssel?|À quoi sert la clé ?|密钥用途
makeKey|Make a key|Schlüssel anlegen|Créer une clé|创建密钥
keyOnce|Copy it now: it is not shown again.|Kopiere ihn jetzt: Er wird nicht noch einmal gezeigt.|Copiez-la maintenant : elle ne sera plus affichée.|请立即复制，之后不再显示。
revoke|Revoke|Widerrufen|Révoquer|吊销
noKeys|No keys yet.|Noch keine Schlüssel.|Aucune clé.|还没有密钥。
balance|Balance|Guthaben|Solde|余额
today|Today’s usage|Nutzung heute|Utilisation du jour|今日用量
back|Back to the chats|Zurück zu den Chats|Retour aux discussions|返回对话
language|Language|Sprache|Langue|语言
`;

const WORDS = new Map(
  CATALOGUE.trim()
    .split("\n")
    .map((line) => {
      const [name, ...texts] = line.split("|");
      return [name!, texts] as const;
    }),
);

function preferred(): Language {
  const kept = localStorage.getItem("language");
  const wanted = [kept, ...navigator.languages].map((name) => name?.slice(0, 2));
  return (wanted.find((name) => LANGUAGES.includes(name as Language)) as Language | undefined) ?? "en";
}

const state = $state({ language: preferred() });

export function language(): Language {
  return state.language;
}

export function setLanguage(name: Language): void {
  state.language = name;
  localStorage.setItem("language", name);
  document.documentElement.lang = name;
}

/** A text of the catalogue in the reader's language, with its places filled. */
export function word(name: string, ...values: (string | number)[]): string {
  const text = WORDS.get(name)?.[LANGUAGES.indexOf(state.language)] ?? name;
  return text.replace(/\{(\d)\}/g, (_, index) => String(values[Number(index)]));
}
