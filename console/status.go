package console

import (
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/snapshot"
)

// Status is what `credence status` shows.
type Status struct {
	Version   string                 `json:"version"`
	Started   time.Time              `json:"started"`
	Ready     bool                   `json:"ready"`
	Objects   int                    `json:"objects"`   // in force
	Workloads int                    `json:"workloads"` // that a proxy can be
	Proxies   []snapshot.ProxyStatus `json:"proxies"`
	Problems  []policy.Problem       `json:"problems"`
}
