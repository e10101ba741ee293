// One product by hand: the score of the likeliest token as a sum, and the multiplications of a token, matrix by matrix.
import { type Product, type Read, usePart } from "../inside.ts";
import { big, count, many, visible } from "../numbers.ts";
import { useSeen } from "./seen.ts";
import { Problem, Waiting, Wide } from "./words.tsx";

const short = (value: number) => value.toFixed(4);

export function ByHand({ read }: { read: Read }) {
  const { place, seen } = useSeen<HTMLElement>();
  const { answer, problem } = usePart<Product>(read, "product", {}, seen.value);
  return (
    <section ref={place}>
      <h2>One product, by hand</h2>
      <Problem text={problem} />
      {!answer && !problem && <Waiting />}
      {answer && (
        <div class="pair">
          <Sum {...answer} />
          <Matrices {...answer} />
        </div>
      )}
    </section>
  );
}

function Sum({ product: made }: Product) {
  const rest = made.score - made.numbers.reduce((sum, each) => sum + each.product, 0);
  const token = visible(made.token.text);
  const gap = Math.abs(made.difference - made.engine);
  return (
    <div class="column">
      <p>
        The score of “{token}” is its row w of the output matrix times the vector x behind the last layer: multiply{" "}
        {many(made.count, "pair")} of numbers and add up. The {made.numbers.length} largest products:
      </p>
      <Wide name="The largest products">
        <table>
          <thead>
            <tr>
              <th scope="col" class="figure">
                place
              </th>
              <th scope="col" class="figure">
                x
              </th>
              <th scope="col" class="figure">
                w
              </th>
              <th scope="col" class="figure">
                x · w
              </th>
            </tr>
          </thead>
          <tbody>
            {made.numbers.map((each) => (
              <tr key={each.place}>
                <th scope="row" class="figure">
                  {each.place}
                </th>
                <td class="figure">{short(each.x)}</td>
                <td class="figure">{short(each.w)}</td>
                <td class="figure">{short(each.product)}</td>
              </tr>
            ))}
            <tr>
              <th scope="row" colSpan={3}>
                the other {count(made.count - made.numbers.length)}
              </th>
              <td class="figure">{short(rest)}</td>
            </tr>
            <tr class="picked">
              <th scope="row" colSpan={3}>
                the score of “{token}”
              </th>
              <td class="figure">
                <b>{short(made.score)}</b>
              </td>
            </tr>
          </tbody>
        </table>
      </Wide>
      <p class="under">
        The check: “{visible(made.second.text)}” has the score {short(made.second.score)} by the same sum, that is{" "}
        {short(made.difference)} less. By the engine’s probabilities it is {short(made.engine)} less; the two differ by{" "}
        {gap.toExponential(1)}.
      </p>
    </div>
  );
}

function Matrices({ product: made }: Product) {
  const all = made.matrices.reduce((sum, each) => sum + each.multiplications, made.attention_multiplications);
  return (
    <div class="column">
      <p>Every token is multiplied by every matrix once:</p>
      <Wide name="The matrices and their multiplications">
        <table>
          <thead>
            <tr>
              <th scope="col">matrix</th>
              <th scope="col" class="figure">
                count × rows × columns
              </th>
              <th scope="col" class="figure">
                multiplications
              </th>
            </tr>
          </thead>
          <tbody>
            {made.matrices.map((each) => (
              <tr key={`${each.name} ${each.rows} ${each.columns}`}>
                <th scope="row">{each.name}</th>
                <td class="figure">
                  {each.count} × {count(each.rows)} × {count(each.columns)}
                </td>
                <td class="figure">{count(each.multiplications)}</td>
              </tr>
            ))}
            <tr>
              <th scope="row" colSpan={2}>
                attention, with the tokens before
              </th>
              <td class="figure">{count(made.attention_multiplications)}</td>
            </tr>
            <tr class="picked">
              <th scope="row" colSpan={2}>
                all of one token
              </th>
              <td class="figure">
                <b>{count(all)}</b>
              </td>
            </tr>
          </tbody>
        </table>
      </Wide>
      <p class="under">That is {big(made.multiplications)} multiplications for each word that the model writes.</p>
    </div>
  );
}
