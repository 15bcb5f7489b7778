package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	"k8s.io/kubernetes/pkg/apis/autoscaling/validation"
)

// A scenario as `sluice hpa` documents it, every default written out.
type scenario struct {
	Spec                    json.RawMessage `json:"spec"`
	InitialReplicas         int32           `json:"initial_replicas"`
	SyncPeriodS             float64         `json:"sync_period_s"`
	DownscaleStabilizationS float64         `json:"downscale_stabilization_s"`
	Tolerance               float64         `json:"tolerance"`
	// by the metric's name
	Metric       map[string][]sample `json:"metric"`
	StatusDelayS float64             `json:"status_delay_s"`
	DurationS    float64             `json:"duration_s"`
}

// From AtS on a metric has this value, or cannot be had.
type sample struct {
	AtS   float64
	Value *float64
}

func (s *sample) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&s.AtS, &s.Value})
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// autoscaler is the object that the API would store: strictly read, with defaults, valid.
func autoscaler(text []byte) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	spec := autoscalingv2.HorizontalPodAutoscalerSpec{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&spec); err != nil {
		return nil, err
	}
	hpa := object(spec)
	legacyscheme.Scheme.Default(hpa)
	internal := autoscaling.HorizontalPodAutoscaler{}
	if err := legacyscheme.Scheme.Convert(hpa, &internal, nil); err != nil {
		return nil, err
	}
	options := validation.HorizontalPodAutoscalerSpecValidationOptions{MinReplicasLowerBound: 1}
	if problems := validation.ValidateHorizontalPodAutoscaler(&internal, options); len(problems) > 0 {
		return nil, fmt.Errorf("%v", problems.ToAggregate())
	}
	return hpa, nil
}
