"""Sentences that are hard to find the end of, by language: each line is one sentence.

Written for these tests; no text of others.
"""

from __future__ import annotations

JAPANESE = """\
今日は晴れです。
「はい。そうです。」と彼は答えた。
「行きますか?」「いいえ。」というやり取りがあった。
彼は「『明日は来ない。』と言っていた。本当だろうか。」と尋ねた。
この値(注1。参照)は正しくない。
この値（注2。表を参照。）は古い。
Yahoo! JAPANは検索サービスである。
Yahoo!ニュースで読みました。
Hey! Say! JUMPのコンサートに行った。
Hey!Say!JUMPのチケットは売り切れた。
モーニング娘。の曲を聴いた。
モーニング娘。が紅白に出場した。
モーニング娘。は、1997年に結成された。
映画『君の名は。』は2016年に公開された。
藤岡弘、は俳優である。
『けいおん!』は4コマ漫画である。
本当か?と彼は聞いた。
なぜだ!と叫んだ。
価格は3.5ドルである。
円周率は3.14159…と続く。
彼は言った……そして去った。
えっ、本当ですか!?
すごい!!
やった!!!
まさか……。
どうして?
ああ、そうか。。。
（これは括弧だけの文です。次もあります。）
「おはようございます。」
『すべては終わった。もう遅い。』
AI王（エーアイおう）は、クイズの大会です。
株式会社A.B.C.は東京にある。
J.R.R.トールキンは作家です。
10.5%の人が賛成しました。
電話番号は03-1234-5678です。
URLはhttps://example.com/a?b=cです。
メールはinfo@example.co.jpまで。
「Yahoo! JAPAN」と「Google」を比べた。
第1条 この法律は、公布の日から施行する。
注意:電源を切ってください。
これは、いわゆる「働き方改革」である。
彼女は笑った(笑)。
結果は以下の通り:合格、不合格、保留。
『坊っちゃん』(1906年。夏目漱石。)を読んだ。
東京(とうきょう)は日本の首都です。
そんなバカな!
信じられますか?
「うそ!」と彼女は言った。
「本当?」と私は聞いた。
答えは「42。」だった。
明治22年(1889年)2月11日に公布された。
No.1の店です。
Mr.Childrenは日本のバンドである。
Dr.コトーは医師だ。
iPhone 15 Proが発売された。
これが「最後。最後の最後。」だ。
吾輩は猫である。
名前はまだ無い。
何だって?
ヘ(゜。゜)ヘという顔文字がある。
カッコの中に「カギ(丸。)カギ」がある場合もある。
「彼は(本当に。)来た。」と書いてある。
【重要。必読。】このファイルを消さないこと。
1〜3月期は増益だった。
A社、B社、C社の3社が参加した。
ポケットモンスター 赤・緑が発売された。
時速300kmで走る。
気温は-3.2℃まで下がった。
それは、なぜか。
では、始めましょう。
はい。
いいえ。
はじめまして。
はやく行こう。
のちに首相となった。
が、失敗した。
と、その時だった。
とても寒い。
ところで、明日は休みです。
でも、行きます。
もう帰ろう。
に関しては、後で述べる。
ラブライブ!を見た。
ラブライブ!の舞台は沼津である。
「どうする?どうする?」と皆が騒いだ。
ＮＨＫの番組です。
ﾃﾚﾋﾞを見る｡
漢字のみの文章終了。
彼の名はJ・F・ケネディ。
うん。
ﾊﾝｶｸも使う。
😀を送った。
𠮷野家で食べた。
がぎぐげご。
「。」は句点である。
?は疑問符である。
文末に記号★がある。
「え?」
「A。B。C。」の順に並ぶ。
『「二重。」の括弧。』も一文だ。
(注:「例。」を見よ。)
本書はISBN 978-4-00-000000-0です。
「ありがとう。」「どういたしまして。」と言い合った。
午前9時30分〜午後5時に開館する。
彼はそう思った、と言う。
一、二、三と数える。
〈あの日。〉という詩がある。
私は『Who am I? Who are you?』という本を買った。
"Stop!"と書かれた看板がある。
Vitamin Cは酸に弱い。
C++やC#を使う。
「Wow! Great!」と叫んだ。
サザンオールスターズの「いとしのエリー」。
1.はじめに述べたとおりである。
これは技術文書である.
値は次第に小さくなる．
図1.2を参照せよ.
(1)式は正しい.
この法律において「労働者」とは、職業の種類を問わず、事業に使用される者をいう。
"""

ENGLISH = """\
This is a sentence.
Mr. Smith went to Washington.
Dr. Jones and Mrs. Brown arrived at 5 p.m. yesterday.
The U.S. economy grew by 3.5 percent.
J. K. Rowling wrote it.
J.R.R. Tolkien was born in 1892.
It cost $3.50 in 1990.
He lives in Washington, D.C. with his wife.
"Is it true?" she asked.
"It is. I saw it," he said.
She said, "I will come."
See fig. 3 for details.
See Fig. 4 on p. 12.
Compare pp. 12-15 of vol. 2.
Smith et al. found the opposite.
Use fruit, e.g. apples.
That is, i.e. never.
The company (Apple Inc.) was founded in 1976.
Visit www.example.com for more.
Write to info@example.com today.
The file is called report.final.pdf.
Version 2.0.1 was released on Jan. 5, 2020.
Ph.D. students may apply.
She holds a Ph.D. in physics.
Yahoo! was founded in 1994.
Is this the end?
What a day!
No way!!
Really?!
Wait... what happened?
He paused... and then left.
(This is in brackets.)
The prof. left early.
St. Paul is a city.
Lt. Col. Miller was killed.
Gen. Lee surrendered.
The No. 5 bus is late.
It happened in the 5th c. B.C. in Greece.
Add 2 tbsp. of sugar.
It is 5 ft. tall.
The temperature was -3.5 degrees.
"Hello!" said the man.
"Why?" he said.
They met at the St. James hotel.
The U.K. and the U.S. agreed.
A.D. 79 was the year of the eruption.
The value of x is .5 here.
I like it; you do not.
First, we eat: then, we sleep.
Prof. Dr. Meyer spoke.
The case Roe v. Wade is known.
He works for Johnson & Johnson Ltd. in London.
It's John's.
"It's," he said, "over."
Don't!
Rock 'n' roll is dead.
The end came at 11:59 p.m. on Friday.
He said: "Go. Now."
Elvis (Jan. 8, 1935) was a singer.
In Sept. he left.
Mt. Everest is high.
Sen. Obama won.
Rev. Martin Luther King, Jr. spoke.
She is 5 yrs. old.
The book (see p. 3. and p. 4.) is old.
This is it!
Who, me?
Oh.
OK.
Yes.
The ratio is 1:2.
It was 50% off.
He got an A+ in math.
Node.js is a runtime.
The .NET framework is old.
Items 1, 2, etc. were sold.
The vs. in the title is short for versus.
Approx. 50 people came.
The dept. of health agreed.
He was born c. 1850 in Rome.
Capt. Cook sailed.
The Rt. Hon. Gordon Brown resigned.
U.N. troops left.
The L.A. Times wrote it.
P.S. I love you.
She lives at 5 Main St. in Boston.
A. Lincoln was president.
Article 5(2) applies.
E. coli is a bacterium.
“I know,” she said.
“Stop! Do not go!” he cried.
‘So it goes.’
The word “etc.” is short.
He wrote “Who’s Afraid of Virginia Woolf?” in 1962.
It means “yes”.
The sum is 1,000,000.
In 1999, 2.5 million came.
"""

OTHER = {
    "de": """\
Das ist z.B. ein Satz.
Am 3. Mai kam er an.
Dr. Müller wohnt in Berlin.
Er kam ca. 5 Minuten zu spät.
Die Firma Maier GmbH & Co. KG ist groß.
Wie geht es dir?
Das Schloss wurde im 18. Jahrhundert gebaut.
„Ja“, sagte sie.
Das sind 3,5 Prozent.
Prof. Schmidt hat recht.
""",
    "fr": """\
M. Dupont est arrivé.
Mme Durand habite à Paris.
Où allez-vous ?
C'est la fin !
Il a dit : « Oui, je viens. »
Voir p. 12 du livre.
Cela coûte 3,50 euros.
Il est né en 1850 à Lyon.
MM. Martin et Petit sont partis.
Le Dr. Lebrun est malade.
""",
    "es": """\
El Sr. García vive en Madrid.
¿Dónde está?
¡Qué día!
La Sra. López llegó a las 5.
Cuesta 3,50 euros.
El Dr. Pérez dijo que no.
""",
    "it": """\
Il sig. Rossi abita a Roma.
Dove vai?
Il prof. Bianchi è malato.
Costa 3,50 euro.
""",
    "pt": """\
O Sr. Silva mora em Lisboa.
Onde está?
A Dra. Costa chegou.
Custa 3,50 euros.
""",
    "nl": """\
Dit is bijv. een zin.
Waar is hij?
Dr. Jansen woont in Utrecht.
""",
    "ru": """\
Это предложение.
Он живёт в г. Москве.
Где он?
Какой день!
А. С. Пушкин родился в 1799 году.
""",
    "zh": """\
今天天气好。
你好吗？
他说：“好。走吧。”
太好了！
价格是3.5元。
""",
    "ko": """\
안녕하세요.
어디 가세요?
가격은 3.5원입니다.
""",
    "el": """\
Αυτό είναι μια πρόταση.
Ναι.
""",
    "hi": """\
यह एक वाक्य है।
वह कहाँ है?
""",
    "ar": """\
هذه جملة.
أين هو؟
""",
}
