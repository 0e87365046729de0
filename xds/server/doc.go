// Package server gives proxies their configuration over xDS: the aggregated discovery service, delta and state-of-the-world, over mutual TLS.
// A proxy is who its certificate says and nobody else. Bytes that several proxies get are encoded once and spliced into the frames of all.
package server
