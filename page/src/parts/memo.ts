// A component that is drawn again only when one of its properties is another.
import { Component, type ComponentType, h, type VNode } from "preact";

export function memo<Props extends object>(draw: (props: Props) => VNode | null): ComponentType<Props> {
  return class extends Component<Props> {
    override shouldComponentUpdate(next: Readonly<Props>): boolean {
      const now = this.props as Readonly<Record<string, unknown>>;
      return Object.entries(next).some(([name, value]) => now[name] !== value);
    }

    override render() {
      return h(draw, this.props as Props);
    }
  };
}
