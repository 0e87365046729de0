package server

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// deltaWire reads the incremental protocol.
type deltaWire struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (w deltaWire) receive() (*request, error) {
	r := &request{}
	return r, w.RecvMsg(r)
}

// sotwWire reads the state-of-the-world protocol.
type sotwWire struct {
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
}

func (w sotwWire) receive() (*request, error) {
	r, err := w.Recv()
	if err != nil {
		return nil, err
	}
	return fromSotW(r), nil
}

func fromSotW(r *discoveryv3.DiscoveryRequest) *request {
	out := &request{node: r.GetNode(), url: r.GetTypeUrl(), nonce: r.GetResponseNonce(), subscribe: r.GetResourceNames(), version: r.GetVersionInfo()}
	if d := r.GetErrorDetail(); d != nil {
		out.refused, out.refusal = true, d.GetMessage()
	}
	return out
}
