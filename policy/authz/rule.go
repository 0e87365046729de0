package authz

import (
	"errors"
	"fmt"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

// ruleBuilder turns one rule into conditions.
type ruleBuilder struct {
	namespace string // of the policy: serviceAccounts without a namespace are looked for there
	mesh      policy.Mesh
	tcp       bool
	httpOnly  []string // fields that a TCP port cannot be asked about; they were left out
}

// rule gives who (from, and the conditions about the caller) and what (to, and the conditions about the request).
// Sources are alternatives and so are operations; the conditions of `when` hold for each of them.
func (b *ruleBuilder) rule(r *securityv1beta1.Rule) (principal, permission Expr, err error) {
	who, what, err := b.conditions(r.GetWhen())
	if err != nil {
		return nil, nil, err
	}
	sources, operations := Any{}, Any{}
	for i, f := range r.GetFrom() {
		of, err := b.source(f.GetSource())
		if err != nil {
			return nil, nil, fmt.Errorf("from[%d]: %w", i, err)
		}
		sources.Of = append(sources.Of, All{Of: append(of, who...)})
	}
	if len(r.GetFrom()) == 0 {
		sources.Of = []Expr{All{Of: who}}
	}
	for i, t := range r.GetTo() {
		of, err := b.operation(t.GetOperation())
		if err != nil {
			return nil, nil, fmt.Errorf("to[%d]: %w", i, err)
		}
		operations.Of = append(operations.Of, All{Of: append(of, what...)})
	}
	if len(r.GetTo()) == 0 {
		operations.Of = []Expr{All{Of: what}}
	}
	return sources, operations, nil
}

// field is one field of a source, an operation or a condition: any of the values, and none of the notValues.
type field struct {
	name        string
	values, not []string
	http        bool // only HTTP has it
	expr        func(value string) (Expr, error)
}

// all joins the fields that are present; a source or operation without any field is a mistake, because it would match everything.
func (b *ruleBuilder) all(fields []field) ([]Expr, error) {
	var out []Expr
	present := false
	for _, f := range fields {
		if len(f.values) == 0 && len(f.not) == 0 {
			continue
		}
		present = true
		of, err := b.one(f)
		if err != nil {
			return nil, err
		}
		out = append(out, of...)
	}
	if !present {
		return nil, errors.New("is empty: it would match everything")
	}
	return out, nil
}

func (b *ruleBuilder) one(f field) ([]Expr, error) {
	if f.http && b.tcp {
		b.httpOnly = append(b.httpOnly, f.name)
		return nil, nil
	}
	var out []Expr
	if len(f.values) > 0 {
		e, err := anyOf(f, f.values)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	if len(f.not) > 0 {
		e, err := anyOf(f, f.not)
		if err != nil {
			return nil, err
		}
		out = append(out, Not{Of: e})
	}
	return out, nil
}

func anyOf(f field, values []string) (Expr, error) {
	var out Any
	for _, v := range values {
		e, err := f.expr(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", f.name, v, err)
		}
		out.Of = append(out.Of, e)
	}
	return out, nil
}

func (b *ruleBuilder) source(s *securityv1beta1.Source) ([]Expr, error) {
	return b.all([]field{
		{name: "principals", values: s.GetPrincipals(), not: s.GetNotPrincipals(), expr: b.principal},
		{name: "requestPrincipals", values: s.GetRequestPrincipals(), not: s.GetNotRequestPrincipals(), http: true, expr: requestPrincipal},
		{name: "namespaces", values: s.GetNamespaces(), not: s.GetNotNamespaces(), expr: sourceNamespace},
		{name: "serviceAccounts", values: s.GetServiceAccounts(), not: s.GetNotServiceAccounts(), expr: b.serviceAccount},
		{name: "trustDomains", values: s.GetTrustDomains(), not: s.GetNotTrustDomains(), expr: b.trustDomain},
		{name: "ipBlocks", values: s.GetIpBlocks(), not: s.GetNotIpBlocks(), expr: directIP},
		{name: "remoteIpBlocks", values: s.GetRemoteIpBlocks(), not: s.GetNotRemoteIpBlocks(), expr: remoteIP},
	})
}

func (b *ruleBuilder) operation(o *securityv1beta1.Operation) ([]Expr, error) {
	return b.all([]field{
		{name: "hosts", values: o.GetHosts(), not: o.GetNotHosts(), http: true, expr: host},
		{name: "methods", values: o.GetMethods(), not: o.GetNotMethods(), http: true, expr: method},
		{name: "paths", values: o.GetPaths(), not: o.GetNotPaths(), http: true, expr: path},
		{name: "ports", values: o.GetPorts(), not: o.GetNotPorts(), expr: destPort},
	})
}

// conditions splits `when` into what is about the caller and what is about the request.
func (b *ruleBuilder) conditions(when []*securityv1beta1.Condition) (who, what []Expr, err error) {
	for i, c := range when {
		f, aboutCaller, err := b.condition(c)
		if err == nil && len(f.values) == 0 && len(f.not) == 0 {
			err = errors.New("has neither values nor notValues")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("when[%d]: %w", i, err)
		}
		of, err := b.one(f)
		if err != nil {
			return nil, nil, fmt.Errorf("when[%d]: %w", i, err)
		}
		if aboutCaller {
			who = append(who, of...)
		} else {
			what = append(what, of...)
		}
	}
	return who, what, nil
}

// condition knows every key that Istio accepts.
func (b *ruleBuilder) condition(c *securityv1beta1.Condition) (f field, aboutCaller bool, err error) {
	f = field{name: c.GetKey(), values: c.GetValues(), not: c.GetNotValues()}
	aboutCaller = true
	switch key := c.GetKey(); {
	case key == "source.ip":
		f.expr = directIP
	case key == "remote.ip":
		f.expr = remoteIP
	case key == "source.namespace":
		f.expr = sourceNamespace
	case key == "source.serviceAccount":
		f.expr = b.serviceAccount
	case key == "source.principal":
		f.expr = b.principal
	case key == "source.trustDomain":
		f.expr = b.trustDomain
	case key == "request.auth.principal":
		f.http, f.expr = true, requestPrincipal
	case key == "request.auth.audiences":
		f.http, f.expr = true, claim("aud")
	case key == "request.auth.presenter":
		f.http, f.expr = true, claim("azp")
	case strings.HasPrefix(key, "request.auth.claims"):
		f.http = true
		f.expr, err = bracketed(key, "request.auth.claims", claim)
	case strings.HasPrefix(key, "request.headers"):
		f.http = true
		f.expr, err = bracketed(key, "request.headers", header)
	default:
		aboutCaller = false
		f, err = requestCondition(f)
	}
	return f, aboutCaller, err
}

func requestCondition(f field) (field, error) {
	switch key := f.name; {
	case key == "destination.ip":
		f.expr = destIP
	case key == "destination.port":
		f.expr = destPort
	case key == "connection.sni":
		f.expr = sni
	case strings.HasPrefix(key, "experimental.envoy.filters."):
		filter, rest, ok := strings.Cut(strings.TrimPrefix(key, "experimental."), "[")
		if !ok || !strings.HasSuffix(rest, "]") {
			return f, fmt.Errorf("key %q has no [key]", key)
		}
		f.expr = metadata(filter, strings.TrimSuffix(rest, "]"))
	default:
		return f, fmt.Errorf("key %q is not known", key)
	}
	return f, nil
}

// bracketed reads the names in "prefix[a][b]" and hands them on.
func bracketed(key, prefix string, expr func(names ...string) func(string) (Expr, error)) (func(string) (Expr, error), error) {
	names, err := Brackets(strings.TrimPrefix(key, prefix))
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", key, err)
	}
	if prefix == "request.headers" && len(names) != 1 {
		return nil, fmt.Errorf("key %q names more than one header", key)
	}
	return expr(names...), nil
}

// Brackets reads "[a][b]" as a, b.
func Brackets(s string) ([]string, error) {
	var out []string
	for s != "" {
		end := strings.IndexByte(s, ']')
		if s[0] != '[' || end < 2 {
			return nil, errors.New("names must stand in brackets, as [name] or [outer][inner]")
		}
		out = append(out, s[1:end])
		s = s[end+1:]
	}
	if len(out) == 0 {
		return nil, errors.New("has no [name]")
	}
	return out, nil
}
