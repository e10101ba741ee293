// Answers as text with structure: marked makes HTML, DOMPurify removes whatever could act, load or leave the page.
import DOMPurify from "dompurify";
import { Marked } from "marked";
import { Component } from "preact";

const ALLOWED = {
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li"],
    ...["h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a"],
  ],
  ALLOWED_ATTR: ["href", "start"],
  ALLOWED_URI_REGEXP: /^https?:\/\//i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("target", "_blank");
});

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// HTML in an answer is shown as the text that it is, and a picture as its address: nothing is fetched.
const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ text, href }) => escaped(`![${text}](${href})`),
  },
});

export function safe(text: string): string {
  // Headings of an answer stand below the page's own.
  const html = marked.parse(text, { async: false }).replace(/<(\/?)h[1-6]\b/g, "<$1h4");
  return DOMPurify.sanitize(html, ALLOWED);
}

// A block is rendered once, however often the text after it grows.
class Block extends Component<{ text: string }> {
  override shouldComponentUpdate(next: { text: string }): boolean {
    return next.text !== this.props.text;
  }

  override render() {
    return <div class="block" dangerouslySetInnerHTML={{ __html: safe(this.props.text) }} />;
  }
}

const LONGEST = 6000; // letters of a block that is still growing: longer ones are plain text until they end

// The text in pieces that end with an empty line outside a fence of code.
export function blocks(text: string): string[] {
  const found: string[] = [];
  let open: string[] = [];
  let fenced = false;
  for (const line of text.split("\n")) {
    if (/^\s*(```|~~~)/.test(line)) fenced = !fenced;
    open.push(line);
    const loose = /^(\s|[-*+>|]|\d+[.)])/; // lists, quotes and tables go on after an empty line
    if (!fenced && line.trim() === "" && !open.some((each) => loose.test(each))) {
      found.push(open.join("\n"));
      open = [];
    }
  }
  if (open.length) found.push(open.join("\n"));
  return found.filter((each) => each.trim() !== "");
}

export function Markdown(props: { text: string; growing?: boolean }) {
  const all = blocks(props.text);
  return (
    <div class="markdown">
      {all.map((text, place) =>
        props.growing && place === all.length - 1 && text.length > LONGEST ? (
          <Plain key={place} text={text} />
        ) : (
          <Block key={place} text={text} />
        ),
      )}
    </div>
  );
}

const PIECE = 2000;

class Piece extends Component<{ text: string }> {
  override shouldComponentUpdate(next: { text: string }): boolean {
    return next.text !== this.props.text;
  }

  override render() {
    return <span>{this.props.text}</span>;
  }
}

// Plain text in pieces, so that one more word changes the last piece only.
function Plain(props: { text: string }) {
  const pieces = [];
  for (let at = 0; at < props.text.length; at += PIECE) {
    pieces.push(<Piece key={at} text={props.text.slice(at, at + PIECE)} />);
  }
  return <p class="as-is">{pieces}</p>;
}
