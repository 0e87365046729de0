package kinds

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/credence-mesh/credence/policy"
)

func namespace(o *object) policy.Resource {
	specOf[corev1.NamespaceSpec](o)
	return &policy.Namespace{}
}

func service(o *object) policy.Resource {
	spec := specOf[corev1.ServiceSpec](o)
	headless := spec.ClusterIP == corev1.ClusterIPNone
	external := spec.Type == corev1.ServiceTypeExternalName
	if len(spec.Ports) == 0 && !headless && !external {
		o.refuse("spec.ports", CodeMissingField, "list at least one port", "a Service has ports")
	}
	if external && !hostname(spec.ExternalName) {
		o.refuse("spec.externalName", CodeBadValue, "a DNS name: shop.example.com, or *.example.com where a wildcard is meant", "%q is no host name", spec.ExternalName)
	}
	switch spec.Type {
	case "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName:
	default:
		o.refuse("spec.type", CodeBadValue, "ClusterIP, NodePort, LoadBalancer or ExternalName", "unknown type %q", spec.Type)
	}
	if spec.ClusterIP != "" && !headless && !address(spec.ClusterIP) {
		o.refuse("spec.clusterIP", CodeBadValue, "10.1.2.3 or 2001:db8::1", "%q is no IP address", spec.ClusterIP)
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i, p := range spec.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		o.servicePort(at, p, len(spec.Ports) > 1)
		o.unique(at+".name", "port name", p.Name, names)
		o.unique(at+".port", "port", fmt.Sprintf("%d%s", p.Port, protocolOf(p.Protocol)), numbers)
	}
	return &policy.Service{Spec: spec}
}

func protocolOf(p corev1.Protocol) string {
	if p == corev1.ProtocolTCP {
		return ""
	}
	return " " + string(p)
}

func (o *object) servicePort(at string, p corev1.ServicePort, several bool) {
	o.port(at+".port", p.Port)
	if several && p.Name == "" {
		o.refuse(at, CodeMissingField, "name each port, after its protocol: http-api, grpc, tcp-db", "one of several ports has no name")
	}
	switch p.Protocol {
	case "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		o.refuse(at+".protocol", CodeBadValue, "TCP, UDP or SCTP; put http or grpc into the port's name or appProtocol", "unknown protocol %q", p.Protocol)
	}
	if t := p.TargetPort; t.Type == 0 && t.IntVal != 0 {
		o.port(at+".targetPort", t.IntVal)
	}
}

func (o *object) port(field string, p int32) {
	if !port(p) {
		o.refuse(field, CodeBadPort, "1 to 65535", "%d is no port", p)
	}
}

// unique reports the second of two equal names. Empty ones are not compared.
func (o *object) unique(field, what, name string, seen map[string]bool) {
	if name != "" && seen[name] {
		o.refuse(field, CodeDuplicateName, "rename or remove one of the two", "%s %s is used twice", what, name)
	}
	seen[name] = true
}

func endpoints(o *object) policy.Resource {
	var b corev1.Endpoints
	o.into(&b, &b.ObjectMeta)
	for i, s := range b.Subsets {
		for j, a := range s.Addresses {
			if !address(a.IP) {
				o.refuse(fmt.Sprintf("subsets[%d].addresses[%d].ip", i, j), CodeBadValue, "10.1.2.3 or 2001:db8::1", "%q is no IP address", a.IP)
			}
		}
		for j, p := range s.Ports {
			o.port(fmt.Sprintf("subsets[%d].ports[%d].port", i, j), p.Port)
		}
	}
	return &policy.Endpoints{Subsets: b.Subsets}
}

func endpointSlice(o *object) policy.Resource {
	b := &discoveryv1.EndpointSlice{}
	o.into(b, &b.ObjectMeta)
	switch b.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN:
	default:
		o.refuse("addressType", CodeBadValue, "IPv4, IPv6 or FQDN", "unknown address type %q", b.AddressType)
	}
	for i, e := range b.Endpoints {
		for j, a := range e.Addresses {
			if b.AddressType != discoveryv1.AddressTypeFQDN && !address(a) {
				o.refuse(fmt.Sprintf("endpoints[%d].addresses[%d]", i, j), CodeBadValue, "10.1.2.3 or 2001:db8::1", "%q is no IP address", a)
			}
		}
	}
	for i, p := range b.Ports {
		if p.Port != nil {
			o.port(fmt.Sprintf("ports[%d].port", i), *p.Port)
		}
	}
	return &policy.EndpointSlice{Slice: b}
}

func configMap(o *object) policy.Resource {
	var b corev1.ConfigMap
	o.into(&b, &b.ObjectMeta)
	return &policy.ConfigMap{Data: b.Data}
}

func secret(o *object) policy.Resource {
	var b corev1.Secret
	o.into(&b, &b.ObjectMeta)
	data := make(map[string]policy.Private, len(b.Data)+len(b.StringData))
	for k, v := range b.Data {
		data[k] = policy.NewPrivate(v)
	}
	for k, v := range b.StringData {
		data[k] = policy.NewPrivate([]byte(v))
	}
	if b.Type == corev1.SecretTypeTLS {
		for _, k := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if len(data[k].Reveal()) == 0 {
				o.refuse("data", CodeMissingField, "tls.crt and tls.key, in PEM", "a Secret of type kubernetes.io/tls has %s", k)
			}
		}
	}
	return &policy.Secret{Type: string(b.Type), Data: data}
}

func serviceAccount(o *object) policy.Resource {
	var b corev1.ServiceAccount
	o.into(&b, &b.ObjectMeta)
	return &policy.ServiceAccount{}
}

// checkLabels holds the labels of a selector to what Kubernetes lets a label be; a value that none can have selects nothing, silently.
func (o *object) checkLabels(field string, labels map[string]string) {
	for k, v := range labels {
		at := field + "[" + k + "]"
		switch {
		case k == "":
			o.refuse(field, CodeBadValue, "app: NAME", "a label's key is empty")
		case strings.Contains(k, "*") || strings.Contains(v, "*"):
			o.refuse(at, CodeBadValue, "select by another label", "a wildcard does not work in a selector")
		case len(v) > 63:
			o.refuse(at, CodeBadValue, "select by another label", "a label's value has at most 63 characters")
		}
	}
}
