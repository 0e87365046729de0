package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/xds/resource"
)

// The secrets of the channel, each in a file of its name. They are also where the companion itself keeps its credential, so that there is
// one copy of the key and no two that could differ.
const (
	channelSecret = "channel"
	rootsSecret   = "roots"
)

// WriteSDS replaces the files that Envoy reads its channel credential from. The roots come first: a new certificate may need them.
func WriteSDS(dir *state.Dir, c attest.Credential) error {
	pair, err := certificate(c)
	if err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	roots := &tlsv3.Secret{Name: rootsSecret, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(c.BundlePEM())},
	}}
	channel := &tlsv3.Secret{Name: channelSecret, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: pair}}
	for _, s := range []*tlsv3.Secret{roots, channel} {
		if err := writeSecret(dir, s); err != nil {
			return fmt.Errorf("credential: %w", err)
		}
	}
	return nil
}

func writeSecret(dir *state.Dir, s *tlsv3.Secret) error {
	body, err := resource.Pack(s)
	if err != nil {
		return err
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{body}})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return err
	}
	return dir.Write(s.Name+".json", out.Bytes())
}

// ErrNoCredential says that a state directory has no credential yet.
var ErrNoCredential = errors.New("there is no credential yet")

// ReadSDS is the credential that WriteSDS wrote.
func ReadSDS(dir *state.Dir) (attest.Credential, error) {
	channel, err := readSecret(dir, channelSecret)
	if err != nil {
		return attest.Credential{}, err
	}
	roots, err := readSecret(dir, rootsSecret)
	if err != nil {
		return attest.Credential{}, err
	}
	return credentialOf(channel.GetTlsCertificate(), roots.GetValidationContext())
}

func readSecret(dir *state.Dir, name string) (*tlsv3.Secret, error) {
	raw, err := dir.Read(name + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoCredential
	}
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	var res discoveryv3.DiscoveryResponse
	secret := &tlsv3.Secret{}
	if protojson.Unmarshal(raw, &res) != nil || len(res.Resources) != 1 || res.Resources[0].UnmarshalTo(secret) != nil {
		return nil, fmt.Errorf("credential: %s.json is damaged: remove it and join anew", name) // the cause could quote the key
	}
	return secret, nil
}

func credentialOf(pair *tlsv3.TlsCertificate, peer *tlsv3.CertificateValidationContext) (attest.Credential, error) {
	text := func(d *corev3.DataSource) []byte { return []byte(d.GetInlineString()) }
	return attest.ParseCredential(text(pair.GetCertificateChain()), text(pair.GetPrivateKey()), text(peer.GetTrustedCa()))
}
