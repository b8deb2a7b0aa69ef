"""``from k12libs.utils.nb_easy import k12ai_post_platform_request``, as the published notebooks do."""

from k12ai.client.notebook import (
    k12ai_count_down,
    k12ai_del_data,
    k12ai_get_data,
    k12ai_get_error_data,
    k12ai_get_metrics_data,
    k12ai_get_result_data,
    k12ai_get_status_data,
    k12ai_post_cv_request,
    k12ai_post_nlp_request,
    k12ai_post_platform_request,
    k12ai_print,
)

__all__ = [
    "k12ai_count_down",
    "k12ai_del_data",
    "k12ai_get_data",
    "k12ai_get_error_data",
    "k12ai_get_metrics_data",
    "k12ai_get_result_data",
    "k12ai_get_status_data",
    "k12ai_post_cv_request",
    "k12ai_post_nlp_request",
    "k12ai_post_platform_request",
    "k12ai_print",
]
