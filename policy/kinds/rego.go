package kinds

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/credence-mesh/credence/policy"
)

// rego reads a module. It must parse, as Rego v1 or as the older v0; what it means is the decision service's affair.
func rego(file, name string, data []byte) Result {
	sum := sha256.Sum256(data)
	o := &object{meta: policy.Object{
		Key: policy.Key{Kind: policy.KindRego, Name: name}, At: policy.Origin{File: file, Line: 1}, Digest: binary.BigEndian.Uint64(sum[:]),
	}}
	problem := policy.Problem{At: o.meta.At, Object: o.meta.Key.String()}
	_, err := ast.ParseModuleWithOpts(name, string(data), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err == nil {
		return Result{Objects: []policy.Resource{&policy.Rego{Object: o.meta, Module: string(data)}}}
	}
	if _, old := ast.ParseModuleWithOpts(name, string(data), ast.ParserOptions{RegoVersion: ast.RegoV0}); old == nil {
		problem.Code, problem.Severity = CodeRegoV0, policy.Warning
		problem.At.Line, _ = regoError(err)
		problem.Says, problem.Try = "written in Rego v0, which OPA 1 reads only when it is told to", "opa fmt --write --v0-v1 "+name
		return Result{Objects: []policy.Resource{&policy.Rego{Object: o.meta, Module: string(data)}}, Problems: []policy.Problem{problem}}
	}
	problem.Code = CodeRegoSyntax
	problem.At.Line, problem.Says = regoError(err)
	return Result{Refused: []Refused{{Key: o.meta.Key, Void: voidOf(nil, o)}}, Problems: []policy.Problem{problem}}
}

func regoError(err error) (line int, says string) {
	var list ast.Errors
	if errors.As(err, &list) && len(list) > 0 && list[0].Location != nil {
		return list[0].Location.Row, list[0].Message
	}
	return 1, err.Error()
}
