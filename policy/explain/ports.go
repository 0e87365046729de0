package explain

import "slices"

// Ports is the ports on which the proxy serves others, in order.
func (c *Config) Ports() []uint32 {
	var out []uint32
	for _, l := range c.listeners {
		captured := false
		for _, f := range l.GetFilterChains() {
			if p := f.GetFilterChainMatch().GetDestinationPort().GetValue(); p != 0 {
				captured = true
				if p != l.GetAddress().GetSocketAddress().GetPortValue() {
					out = append(out, p)
				}
			}
		}
		if p := l.GetAddress().GetSocketAddress().GetPortValue(); p != 0 && !captured {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
